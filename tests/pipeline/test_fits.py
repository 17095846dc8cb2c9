"""Pinned fits: a later run decides as an earlier one did, wherever it runs, and says so."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.cluster import Cluster
from pipeline.fits import FIT, digest, read_fit, write_fit
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit
from tests.pools import sample, write_tar

PLUGIN = """
import io
from typing import Literal
import numpy as np
import pyarrow as pa
from PIL import Image
from schemas.columns import IMAGE, IMAGE_EMBEDDING
from stages.stage import Stage


class Pixels(Stage):
    kind: Literal["pixels"] = "pixels"
    side: int = 4
    reads, writes = (IMAGE,), (IMAGE_EMBEDDING,)

    def open(self):
        def embedding(data):
            small = Image.open(io.BytesIO(data)).convert("L").resize((self.side, self.side))
            values = np.asarray(small, np.float64).ravel() - 127.5
            return (values / np.linalg.norm(values)).astype(np.float16)

        def score(batch):
            found = [embedding(data) for data in batch["image"].to_pylist()]
            values = pa.array(found, pa.list_(pa.float16()))
            return pa.record_batch([values, pa.nulls(len(found), pa.string())], self.returns())

        return score
"""
RULES = """  - {kind: pixels}
plugins: [pixels.py]
select:
  - {kind: at_least, column: words, value: 3}
  - {kind: top_fraction, column: grey_deviation, fraction: 0.8, per_source: true}
  - {kind: semdedup, keep: 0.9}
  - {kind: dsir, target: target, samples: 24}
mix: {kind: optimal_transport, target: target, max_repeats: 1, bootstrap: 20}
export: {kind: webdataset, samples: 20, samples_per_shard: 8}
"""
LEARNED = ["2. top_fraction", "3. semdedup", "4. dsir"]


def ran(recipe: Path) -> Outcome:
    outcome = run(resolve(recipe), Cluster(), until="export")
    finish(outcome)
    return outcome


def grow(recipe: Path) -> None:
    for source, start in (("alpha", 30_000), ("beta", 40_000)):
        path = recipe.parent / "pool" / source / "00007.tar"
        write_tar(path, [sample(number) for number in range(start, start + 12)])


def pin(recipe: Path, named: str) -> None:
    recipe.write_text(recipe.read_text() + f"fits: {named}\n")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fits(outcome: Outcome) -> dict[str, dict[str, object]]:
    lines = {step["name"]: step["fit"] for step in outcome.record["steps"] if step["fit"]}
    return lines | {"mix": outcome.record["mixture"]["fit"]}


Made = Callable[..., Path]


@pytest.fixture
def made(make_pool: Made, ray_cluster: object) -> Made:
    def make(folder: str = "one") -> Path:
        recipe = make_pool(folder=folder, extra=RULES)
        (recipe.parent / "pixels.py").write_text(PLUGIN)
        return recipe

    return make


def test_a_grown_pool_is_decided_as_the_pinned_run_did(made: Made) -> None:
    one, two = made("one"), made("two")
    first = ran(one)
    assert list(fits(first)) == [*LEARNED, "mix"]
    grow(one)
    pin(one, first.name)
    second = ran(one)
    assert not [note for note in second.record["notes"] if note.startswith("fits")]
    for name, line in fits(second).items():
        assert line["sha256"] == fits(first)[name]["sha256"] == digest(work(one) / str(line["folder"]) / FIT)
        assert (line["pinned"], fits(first)[name]["pinned"]) == (True, False)
    assert second.record["steps"][1]["evidence"] == first.record["steps"][1]["evidence"] | {
        "n": 72,
        "pinned": True,
        "sources": second.record["steps"][1]["evidence"]["sources"],
    }
    assert second.record["mixture"]["weights"] == first.record["mixture"]["weights"]
    assert second.record["recipe_fingerprint"] != first.record["recipe_fingerprint"]
    assert Path(second.record["pinned_to"]) == first.folder

    grow(two)
    place = os.path.relpath(first.folder, two.parent)
    pin(two, place)
    fresh = ran(two)
    assert fresh.record["recipe_fingerprint"] == second.record["recipe_fingerprint"]
    assert tree(fresh.resolved.export_folder) == tree(second.resolved.export_folder)
    again = ran(two)
    assert all(step["reused"] for step in again.record["steps"]) and fits(again) == fits(fresh)
    two.write_text(two.read_text().replace(place, again.name))  # a pin of a pin
    assert resolve(two).recipe_fingerprint() == fresh.record["recipe_fingerprint"]


def work(recipe: Path) -> Path:
    return recipe.parent / "work"


def test_the_same_rows_get_the_same_verdicts(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    pin(recipe, first.name)
    second = ran(recipe)
    assert second.chosen.survivors.equals(first.chosen.survivors)
    assert second.blend is not None and first.blend is not None and second.blend.draws.equals(first.blend.draws)
    assert second.chosen.chain != first.chosen.chain


def test_what_differs_from_the_pinned_run_is_fitted_anew_with_a_note(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    pin(recipe, first.name)
    text = recipe.read_text().replace("keep: 0.9", "keep: 0.8").replace("bootstrap: 20", "bootstrap: 21")
    recipe.write_text(text.replace("value: 3", "value: 2"))  # learns nothing, so it is no matter
    second = ran(recipe)
    assert [name for name, line in fits(second).items() if not line["pinned"]] == ["3. semdedup", "mix"]
    notes = [note for note in second.record["notes"] if note.startswith("fits")]
    ending = f"was fitted anew: run {first.name} has no fit for its settings, version and scores"
    assert notes == [f"fits: 3. semdedup {ending}", f"fits: optimal_transport {ending}"]
    recipe.write_text(recipe.read_text().replace("{kind: pixels}", "{kind: pixels, side: 5}"))
    pins = resolve(recipe).pins
    assert pins is not None  # other embeddings: neither centroids nor weights are of them
    assert [bool(pinned) for pinned in (*pins.rules, pins.mixer)] == [False, True, False, True, False]


def test_two_equal_steps_take_the_first_and_the_second_fit(made: Made) -> None:
    recipe = made()
    line = "  - {kind: top_fraction, column: grey_deviation, fraction: 0.8, per_source: true}\n"
    recipe.write_text(recipe.read_text().replace(line, 2 * line))
    first = ran(recipe)
    pin(recipe, first.name)
    pins = resolve(recipe).pins
    assert pins is not None
    found = [pinned.sha256 for pinned in pins.rules[1:3] if pinned]
    assert found == [step["fit"]["sha256"] for step in first.record["steps"][1:3]] and found[0] != found[1]


def test_a_source_that_is_new_or_gone(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    text = recipe.read_text()
    gone = text.replace('  - {source: beta, shards: "pool/beta/*.tar"}\n', "").replace("samples: 2", "samples: 1")
    recipe.write_text(gone + f"fits: {first.name}\n")
    second = ran(recipe)
    assert second.record["mixture"]["capped"] == {"alpha": 1.0}
    assert any("'beta' has no rows any more: its pinned share" in note for note in second.record["notes"])
    shutil.copytree(recipe.parent / "pool" / "beta", recipe.parent / "pool" / "gamma")
    recipe.write_text(text.replace("beta", "gamma") + f"fits: {first.name}\n")
    with pytest.raises(CuveeError, match=r"rule 'top_fraction': source 'gamma' has no pinned border"):
        ran(recipe)


def test_pins_that_cannot_hold_are_refused(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    text = recipe.read_text()

    def refused(named: str, message: str) -> None:
        recipe.write_text(text + f"fits: {named}\n")
        with pytest.raises(RecipeError, match=message):
            resolve(recipe)

    for name in ("latest", "work/runs/latest", "work/runs/latest/"):
        refused(name, "fits: `latest` means another run after each run.*found 'w?")
    refused(first.name[:-1], f"there is no run .*did you mean '{first.name}'")
    refused("../nowhere/x", "there is no run .*known: none")
    (first.folder.parent / "killed").mkdir()
    refused("killed", r"killed has no run\.json, so it did not finish")
    (first.folder.parent / "killed" / "run.json").write_text("{")
    refused("killed", r"killed/run\.json is no JSON")
    (first.folder.parent / "killed" / "run.json").write_text(json.dumps({"steps": [{"kind": "dsir"}], "mixture": None}))
    refused("killed", "killed is of a version that kept no fits")

    line = fits(first)["4. dsir"]
    file = work(recipe) / str(line["folder"]) / FIT
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(first.name, f"has sha256 .*, run {first.name} recorded {line['sha256']}")
    shutil.rmtree(file.parent)
    refused(first.name, rf"{file.parent.name}/{FIT} of run {first.name} is gone")
    recipe.write_text(text.replace("samples: 24", "samples: 23") + f"fits: {first.name}\n")
    resolve(recipe)  # that fit is not needed any more


FACTS = {"borders": {"b": 0.1, "a": 1 / 3}, "deviation": 5e-324, **{f"fact {n}": n for n in range(20)}}
WRITE = f"""
import hashlib, sys, numpy as np
from pathlib import Path
from pipeline.fits import FIT, write_fit
from stages.fit import Fit
arrays = {{name: np.arange(6, dtype=kind).reshape(2, 3) for name, kind in
          [("z", "f8"), ("a", "f4"), ("m", "i8"), ("b", "f8"), ("y", "f4")]}}
write_fit(Fit(dict(reversed(arrays.items())) if sys.argv[2:] else arrays, {FACTS}), Path(sys.argv[1]))
"""


def test_equal_fits_are_equal_bytes_in_any_process(tmp_path: Path) -> None:
    found = set()
    for options in ([], [], ["reversed"]):
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path), *options], check=True)
        found.add(hashlib.sha256((tmp_path / FIT).read_bytes()).hexdigest())
    assert len(found) == 1
    fit = read_fit(tmp_path / FIT)
    assert fit.facts == FACTS and set(fit.arrays) == set("zamby")
    assert fit.arrays["m"].tolist() == [[0, 1, 2], [3, 4, 5]] and fit.arrays["m"].dtype == np.int64
    write_fit(Fit(facts={"only": "facts"}), tmp_path)
    assert read_fit(tmp_path / FIT) == Fit(facts={"only": "facts"})
    turned = Fit({"t": np.arange(6.0).reshape(2, 3).T})
    write_fit(turned, tmp_path)
    assert read_fit(tmp_path / FIT) == turned
