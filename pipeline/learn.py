"""What stages learn: in which order scoring goes, where a fit lies, and the rows that it is learned from."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from pipeline.fingerprints import fingerprint, inputs_of
from pipeline.fits import FIT, fit_line, write_fit
from pipeline.holdout import HELD_OUT_SHARE, MATCH_DISTANCE, held_out, matching
from pipeline.plan import Shard
from pipeline.resolve import Resolved
from pipeline.table import ScoreTable
from schemas.columns import PHASH
from schemas.errors import CuveeError
from stages.fitted_stage import Examples, FittedStage
from stages.noise import uniform_noise
from stages.stage import Stage


def waves(stages: Sequence[Stage]) -> list[list[str]]:
    """Names in the order of their work: what waits for nothing, what waits for fits or models' replies on that, ...

    Each list is scored in one pass over the shards, in recipe order; only the first one reads images, but for a stage
    that reads both an image and what a fit made.
    """
    depth: dict[str, int] = {}
    ready: dict[str, int] = {}
    """Column -> the first wave that may read it: what a served model replies is there when its wave is over."""
    for stage in stages:
        inputs = [ready[field.name] for field in inputs_of(stage) if field.name in ready]
        depth[stage.name] = max(inputs, default=0) + isinstance(stage, FittedStage)
        later = depth[stage.name] + (stage.generation() is not None)
        ready |= {field.name: later for field in stage.writes}
    deepest = max(depth.values(), default=0)
    return [[kind for kind, number in depth.items() if number == wave] for wave in range(deepest + 1)]


def foreseen(resolved: Resolved, shards: Sequence[Shard]) -> Resolved:
    """The recipe with every fit that is pinned or there already; nothing is learned or written."""
    for stage in resolved.stages:
        if isinstance(stage, FittedStage) and (line := _line(resolved, shards, stage)) is not None:
            resolved = resolved.with_fit(stage.name, line)
    return resolved


def learn(
    resolved: Resolved, shards: Sequence[Shard], wave: Sequence[str], progress: Callable[[str, int, int], None]
) -> Resolved:
    """The recipe with the fits of a wave's stages: pinned ones, those that are there, and what is learned now.

    Raises:
        CuveeError: a stage has no row to learn from, or cannot learn from what there is.
    """
    learning = [stage for stage in resolved.stages if isinstance(stage, FittedStage) and stage.name in wave]
    known = tuple(stage for stage in resolved.stages if stage.name in resolved.addresses)
    sound = Sound(ScoreTable(replace(resolved, stages=known), tuple(shards)))
    for number, stage in enumerate(learning):
        progress("learning", number, len(learning))
        line = _line(resolved, shards, stage)
        if line is None or not (resolved.workspace.root / line["folder"] / FIT).exists():
            folder = resolved.workspace.fit(_address(resolved, shards, stage) or "")
            pin = resolved.pins.stages.get(stage.name) if resolved.pins else None
            write_fit(pin.read() if pin else _learned(stage, sound), folder)
            line = _line(resolved, shards, stage)
            assert line is not None
            line = {**line, "learned": pin is None}
        resolved = resolved.with_fit(stage.name, line)
    progress("learning", len(learning), len(learning))
    return resolved


def _line(resolved: Resolved, shards: Sequence[Shard], stage: FittedStage) -> dict[str, Any] | None:
    """What run.json says of a stage's fit; None if it has to be learned first."""
    address = _address(resolved, shards, stage)
    if address is None:
        return None
    folder, pin = resolved.workspace.fit(address), resolved.pins.stages.get(stage.name) if resolved.pins else None
    line = fit_line(folder, resolved.asked[stage.name], pin)
    if line is None and pin is not None:
        line = {
            "folder": f"fits/{address}",
            "sha256": pin.sha256,
            "method": resolved.asked[stage.name],
            "pinned": True,
        }
    return line and {**line, "learned": False}


def _address(resolved: Resolved, shards: Sequence[Shard], stage: FittedStage) -> str | None:
    """Where its fit lies: settings, version, seed, inputs, and what it learns from; None while one is not known."""
    writers = {field.name: other.name for other in resolved.stages for field in other.writes}
    inputs = {writers[field.name] for field in inputs_of(stage) if field.name in writers}
    if not inputs <= resolved.addresses.keys():
        return None
    pin = resolved.pins.stages.get(stage.name) if resolved.pins else None
    asked = resolved.asked[stage.name]
    if pin is not None:
        return f"{stage.name}-{fingerprint([asked, pin.sha256])}"
    roles = set(stage.learns_from)
    if resolved.recipe.train is not None and roles:
        roles |= {shard.input.role for shard in shards}  # any of them may hold out rows of another
    found = [shard for shard in shards if shard.input.role in roles and shard.reason is None]
    if not all(shard.digest for shard in found):
        return None
    facts = {
        "asked": asked,
        "seed": resolved.recipe.seed,
        "inputs": sorted(resolved.addresses[kind] for kind in inputs),
        "shards": sorted([shard.input.role, shard.input.source, str(shard.digest)] for shard in found),
        "held_out": _held_out_facts(resolved) if roles else None,
    }
    return f"{stage.name}-{fingerprint(facts)}"


def _held_out_facts(resolved: Resolved) -> list[Any] | None:
    """What decides which rows are held out or match one that is."""
    train = resolved.recipe.train
    if train is None:
        return None
    hashes = [resolved.addresses.get(s.name) for s in resolved.stages if PHASH in s.writes]
    return [train.eval is None, HELD_OUT_SHARE, MATCH_DISTANCE, hashes]


class Sound:
    """The rows that may be learned from."""

    def __init__(self, table: ScoreTable) -> None:
        self.table = table
        self._uids: dict[str, pl.DataFrame] = {}

    def uids(self, role: str) -> pl.DataFrame:
        """(uid) of a role's rows that ingest took, that are not held out, and whose image is no held-out one's."""
        if not self._uids:
            samples = self.table.samples.filter(pl.col("index_reason").is_null())
            held = held_out(self.table, samples)
            matches = matching(self.table, samples, held) if len(held) else held
            away = pl.concat([held.select("uid"), matches.select("uid")]).unique()
            left = samples.join(away, on="uid", how="anti").select("uid", "role")
            self._uids = {
                str(name): part.select("uid") for (name,), part in left.partition_by("role", as_dict=True).items()
            }
        return self._uids.get(role, pl.DataFrame(schema={"uid": pl.String}))

    def why(self, role: str) -> str:
        """What is wrong with a role's shards, if anything."""
        shards = (shard for shard in self.table.shards if shard.input.role == role and shard.reason)
        named = ", ".join(f"{shard.input.container.path} ({shard.reason})" for shard in list(shards)[:3])
        return f": {named}" if named else ""


def _learned(stage: FittedStage, sound: Sound) -> Any:
    resolved = sound.table.resolved
    seed = resolved.recipe.seed
    writers = {field.name: other for other in resolved.stages for field in other.writes}
    reads = {field.name: writers[field.name] for field in inputs_of(stage) if field.name in writers}
    try:
        rows = {role: _rows(stage, sound, role) for role in stage.learns_from}
        return stage.learn(Examples(rows, seed, reads))
    except CuveeError as error:
        raise type(error)(f"stage {stage.name!r}: {error}") from error


def _rows(stage: FittedStage, sound: Sound, role: str) -> pl.DataFrame:
    """The rows of a role with the smallest hash(seed, uid) that lack nothing, in uid order."""
    names = [field.name for field in stage.studies()]
    usable = sound.uids(role)
    if usable.is_empty():
        raise CuveeError(f"nothing to learn from: no sample of the {role} can be read{sound.why(role)}")
    scores = sound.table.scores(role, names)
    whole = scores.filter(pl.all_horizontal(pl.col(names).is_not_null())).select("uid")
    uids = whole.join(usable.lazy(), on="uid", how="semi").collect()["uid"].sort()
    if uids.is_empty():
        raise CuveeError(f"nothing to learn from: no sample of the {role} has {' and '.join(names)}")
    if len(uids) > stage.learn_rows:
        noise = uniform_noise(uids.to_list(), sound.table.resolved.recipe.seed, f"learn {stage.name}")
        uids = uids.gather(np.argsort(noise, kind="stable")[: stage.learn_rows]).sort()
    return scores.join(uids.to_frame().lazy(), on="uid", how="semi").sort("uid").collect()
