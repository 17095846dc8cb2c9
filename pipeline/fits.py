"""Fits on disk: written beside what they decided, named in run.json, and pinned by a recipe's `fits: RUN`.

A pin is matched by what was fitted and counted by content: neither the run's name nor its place enters an address, so
two workspaces with equal pools and equal pins write equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from pipeline.sidecars import read_json, replacing
from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit

FIT = "fit.safetensors"


@dataclass(frozen=True)
class Pin:
    """One fit of the pinned run."""

    path: Path
    sha256: str

    def read(self) -> Fit:
        """The fit.

        Raises:
            CuveeError: it was removed after the recipe was checked.
        """
        if not self.path.exists():
            raise CuveeError(f"the pinned fit {self.path} is gone since this run began; was `cuvee gc` run meanwhile?")
        return read_fit(self.path)


@dataclass(frozen=True)
class Pins:
    """The fits of one run that a recipe decides with."""

    folder: Path
    """Of the run; `folder / run.json` names every fit folder, relative to the run's workspace."""
    rules: tuple[Pin | None, ...]
    """Per rule of the recipe; None where the run has no fit for it."""
    mixer: Pin | None
    stages: Mapping[str, Pin] = field(default_factory=dict)
    """Per kind that learns; left out where the run has no fit for it."""

    def identity(self) -> list[str | None]:
        """Contents, in the recipe's order; the mixer's after the rules', then those of stages."""
        decided = [pin.sha256 if pin else None for pin in (*self.rules, self.mixer)]
        return decided + [self.stages[kind].sha256 for kind in sorted(self.stages)]

    def refitted(self, name: str) -> str:
        """The note for a method that learned although the recipe pins."""
        return f"fits: {name} was fitted anew: run {self.folder.name} has no fit for its settings, version and scores"


def find_pins(folder: Path, rules: Sequence[str], mixer: str | None, stages: Mapping[str, str]) -> Pins:
    """Match a recipe's methods with those of a finished run.

    Args:
        folder: the run's.
        rules: per rule of the recipe, the key of what it fits; the nth rule with a key takes the run's nth.
        mixer: the mixer's key.
        stages: kind -> the key of what a stage fits.

    Raises:
        RecipeError: the run did not finish, kept no fits, or a fit that is needed is gone or not what was recorded.
    """
    record = _record(folder)
    lines = [step["fit"] for step in record["steps"] if step["fit"] is not None]
    left = {key: [line for line in lines if line["method"] == key] for key in {*rules}}
    pinned = tuple(_pin(folder, left[key].pop(0)) if left[key] else None for key in rules)
    mixed = record["mixture"]["fit"] if record["mixture"] else None
    learned = {line["kind"]: line["fit"] for line in record["stages"] if line.get("fit")}
    scored = {
        kind: _pin(folder, learned[kind])
        for kind, key in stages.items()
        if kind in learned and learned[kind]["method"] == key
    }
    return Pins(folder, pinned, _pin(folder, mixed) if mixed and mixed["method"] == mixer else None, scored)


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = read_json(folder / "run.json")
    except FileNotFoundError as error:
        raise RecipeError(f"`fits`: {folder} has no run.json, so it did not finish; pin a finished run") from error
    except ValueError as error:
        raise RecipeError(f"`fits`: {folder / 'run.json'} is no JSON ({error}); pin another run") from error
    parts = [*record.get("steps", [{}]), *([record["mixture"]] if record.get("mixture") else [])]
    if not all("fit" in part for part in parts):
        raise RecipeError(f"`fits`: {folder.name} is of a version that kept no fits; run its recipe again and pin that")
    return record


def _pin(folder: Path, line: dict[str, Any]) -> Pin:
    path = folder.parents[1] / line["folder"] / FIT
    if not path.is_file():
        raise RecipeError(f"`fits`: {path} of run {folder.name} is gone; run its recipe again, or pin another run")
    if (found := digest(path)) != line["sha256"]:
        raise RecipeError(
            f"`fits`: {path} has sha256 {found}, run {folder.name} recorded {line['sha256']}; pin another"
        )
    return Pin(path, line["sha256"])


def fit_line(folder: Path, method: str, pin: Pin | None) -> dict[str, Any] | None:
    """What run.json says of the fit in a folder of fits/; None where nothing was learned."""
    if not (folder / FIT).exists():
        return None
    place = f"{folder.parent.name}/{folder.name}"
    return {"folder": place, "sha256": digest(folder / FIT), "method": method, "pinned": pin is not None}


def write_fit(fit: Fit, folder: Path) -> None:
    """Write a fit into a folder: equal fits are equal bytes.

    All facts stand under one metadata key: safetensors sorts arrays, but not the keys of its metadata.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in fit.arrays.items()}
    facts = json.dumps(fit.facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    with replacing(folder / FIT) as temporary:
        temporary.write_bytes(save(arrays, {"cuvee": facts}))


def read_fit(path: Path) -> Fit:
    """The inverse of `write_fit`."""
    with safe_open(path, "numpy") as file:
        return Fit({name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["cuvee"]))  # noqa: SIM118


def read_facts(path: Path) -> dict[str, Any]:
    """The small part of a fit; its arrays stay on disk."""
    with safe_open(path, "numpy") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["cuvee"])
    return facts


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
