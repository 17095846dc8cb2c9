"""With GPUs the graph has two operators; the scores are the same bytes as with one."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import pipeline.sidecars
import pipeline.worker
from pipeline.cluster import Cluster
from pipeline.identify import look
from pipeline.plan import make_plan
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.score import toolbox
from pipeline.worker import Occupied, SliceWorker
from stages.kinds import kinds
from stages.stage import Stage

PLUGIN = """
from typing import Literal
import pyarrow as pa
from schemas.columns import IMAGE, WORDS, column
from stages.stage import Stage

WEIGHT = column("weight_of_words", pa.float32(), "image bytes per word", low=0)

class Weight(Stage):
    kind: Literal["weight"] = "weight"
    reads, writes = (IMAGE, WORDS), (WEIGHT,)
    uses_gpu = True

    def open(self):
        def score(batch):
            pairs = zip(batch["image"].to_pylist(), batch["words"].to_pylist())
            values = [len(image) / max(words or 0, 1) for image, words in pairs]
            return pa.record_batch([pa.array(values, pa.float32()), pa.nulls(len(values), pa.string())], self.returns())
        return score
"""

TWO_AT_ONCE = """
import itertools
import threading
from typing import Literal
import pyarrow as pa
from schemas.columns import WORDS, column
from stages.stage import Stage

MET, ALONE = column("met", pa.int32(), "words"), column("alone", pa.int32(), "what was met")

class Meets(Stage):
    kind: Literal["meets"] = "meets"
    reads, writes = (WORDS,), (MET,)
    uses_gpu = concurrent = True

    def open(self):
        second, calls = threading.Barrier(2), itertools.count()
        def score(batch):
            if next(calls) < 2:
                second.wait(120)
            return pa.record_batch([batch["words"], pa.nulls(len(batch), pa.string())], self.returns())
        return score

class Alone(Stage):
    kind: Literal["alone"] = "alone"
    reads, writes = (MET,), (ALONE,)

    def open(self):
        inside = threading.Lock()
        def score(batch):
            assert inside.acquire(blocking=False), "two slices at once in a stage that is not concurrent"
            threading.Event().wait(0.05)
            inside.release()
            return pa.record_batch([batch["met"], pa.nulls(len(batch), pa.string())], self.returns())
        return score
"""


@pytest.fixture
def one_gpu() -> Iterator[None]:
    """A cluster that says it has a GPU: placement is real, the device is not touched."""
    import ray

    ray.shutdown()
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def weighing(recipe: Path) -> Path:
    (recipe.parent / "weight.py").write_text(PLUGIN)
    text = recipe.read_text().replace("  - {kind: perceptual_hash}\n", "  - {kind: weight}\n")
    recipe.write_text(text + "plugins: [weight.py]\n")
    return recipe


def scored(recipe: Path) -> dict[str, bytes]:
    weighing(recipe)
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, until="score")
    assert outcome.record["computed"] == 5 * 4
    root = recipe.parent / "work" / "scores"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def test_two_operators_write_the_same_bytes_as_one(make_pool: Callable[..., Path], one_gpu: None) -> None:
    import ray

    with_gpu = scored(make_pool(folder="gpu"))
    ray.shutdown()
    without = scored(make_pool(folder="cpu"))
    assert with_gpu == without


def test_a_gpu_has_two_slices_before_it(make_pool: Callable[..., Path], one_gpu: None) -> None:
    """In a concurrent stage both at once, in others one after the other."""
    recipe = make_pool()
    (recipe.parent / "two.py").write_text(TWO_AT_ONCE)
    text = recipe.read_text().replace("  - {kind: perceptual_hash}\n", "  - {kind: meets}\n  - {kind: alone}\n")
    recipe.write_text(text + "plugins: [two.py]\n")
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, until="score")
    assert outcome.record["computed"] == 5 * 5


def test_seconds_of_two_slices_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 3.0, 8.0, 9.0, 9.5])
    monkeypatch.setattr("pipeline.worker.time.perf_counter", lambda: next(now))
    occupied = Occupied()
    one, two, three = dict[str, float](), dict[str, float](), dict[str, float]()
    with occupied(one, "clip"):  # from 1
        with occupied(two, "clip"):
            pass  # until 3
        assert two == {"clip": 2.0}
    assert one == {"clip": 5.0}  # until 8
    with suppress(RuntimeError), occupied(three, "clip"):  # from 9
        raise RuntimeError
    assert three == {"clip": 0.5}


@pytest.mark.parametrize(
    ("kind", "settings", "inside"),
    [
        ("clip", {"model": "m"}, None),
        ("tmars", {"model": "m"}, None),
        ("loss_difference", {"reference": "m", "teacher": "n"}, None),
        ("caption_likelihood", {"captioner": {"kind": "transformers", "model": "m"}}, "captioner"),
        ("mlm_filter", {"backend": {"kind": "transformers", "model": "m"}}, "backend"),
        ("rater", {"rubric": "dataman", "backend": {"kind": "transformers", "model": "m"}}, "backend"),
    ],
)
def test_a_model_takes_a_gpu_only_where_its_settings_say_so(kind: str, settings: Any, inside: str | None) -> None:
    for device in ("cpu", "cuda"):
        named = {inside: settings[inside] | {"device": device}} if inside else {"device": device}
        assert kinds(Stage)[kind].model_validate(settings | named).uses_gpu == (device == "cuda")


def test_what_a_gpu_computed_names_it(make_pool: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that had a part in it: after a restart another one may have gone on with a shard."""
    names = iter(["NVIDIA L4", "NVIDIA H200", *["NVIDIA L4"] * 100])
    monkeypatch.setattr(pipeline.worker, "gpu_facts", lambda: {"gpu": next(names)})
    monkeypatch.setattr(pipeline.worker, "SLICE_ROWS", 5)
    resolved = resolve(weighing(make_pool()))
    item = make_plan(resolved, look(resolved)[0]).work[0]
    reports = [report for report, _ in SliceWorker(toolbox(resolved)).work(item)]
    assert len(reports) > 2
    sidecars = list(resolved.workspace.root.glob("scores/*/*.parquet"))
    facts = {path.parent.name.split("-")[0]: json.loads(pq.read_schema(path).metadata[b"cuvee"])
             for path in sidecars if "index" not in path.parent.name}  # fmt: skip
    assert {name: said.get("gpu") for name, said in facts.items()} == {
        "weight": "NVIDIA H200, NVIDIA L4", "image_header": None, "caption_text": None,
    }  # fmt: skip
    assert all("torchvision" in said["libraries"] for said in facts.values())


def test_the_gpu_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    for kind, facts in (("cpu", {}), ("cuda", {"gpu": "NVIDIA H200"})):
        monkeypatch.setattr(pipeline.sidecars, "device_kind", lambda kind=kind: kind)
        assert pipeline.sidecars.gpu_facts() == facts
