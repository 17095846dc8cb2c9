"""The scoring graph on Ray Data, for clusters with GPUs: CPU actors read and run the light stages, GPU actors the rest.

One row is one work item, then one slice, never a sample, so no block boundary can mix slices; Ray Data holds the two
operators in step, so that the GPUs never wait and memory stays bounded.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.plan import Work
from pipeline.resolve import Resolved
from pipeline.worker import SliceWorker, Toolbox, described

IN_FLIGHT = 2
"""Slices in a GPU actor: the images of one are decoded while another keeps the GPU and the disk busy."""


def graph_reports(ray: Any, box: Toolbox, heavy: list[str], items: list[str]) -> Iterator[dict[str, Any]]:
    """Stream the workers' reports; each slice's compressed bytes go from CPU to GPU actors as one row."""
    gpus = int(ray.cluster_resources()["GPU"])
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    light = [stage.name for stage in box.open() if stage.name not in heavy and stage.generation() is None]
    reading = ray.data.from_items([{"work": item} for item in items], override_num_blocks=len(items)).map_batches(
        Reading,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(box, light),
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=min(cpus, len(items))),
    )
    graph = reading.map_batches(
        Inferring,
        batch_size=1,  # Ray asks for a number with GPUs; a row is a whole slice, so nothing can be mixed
        batch_format="pyarrow",
        fn_constructor_args=(box, heavy),
        num_gpus=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=gpus, max_concurrent_calls_per_actor=IN_FLIGHT, enable_true_multi_threading=True
        ),
    )
    for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
        for text in batch["report"].to_pylist():
            yield json.loads(text)


def heavy_stages(resolved: Resolved) -> list[str]:
    """GPU stages, and every stage that reads what one of them writes."""
    heavy, written = [], set[str]()
    for stage in resolved.stages:
        if stage.uses_gpu or written & {field.name for field in stage.reads}:
            heavy.append(stage.name)
            written |= {field.name for field in stage.writes}
    return heavy


class Reading:
    """The first operator: reads work items and runs the CPU stages."""

    def __init__(self, box: Toolbox, names: list[str]) -> None:
        self.worker = SliceWorker(box, names)

    def __call__(self, batch: pa.Table) -> Iterator[dict[str, list[Any]]]:
        """One row of JSON in; a row per slice and shard out, at once when it is done."""
        for text in batch["work"].to_pylist():
            item = Work.from_json(json.loads(text))
            try:
                for report, payload in self.worker.work(item, hand_on=True):
                    yield _row(report | {"work": item.to_json()} if payload else report, payload)
            except Exception as error:
                yield _row({"token": item.token, "error": described(error, item)})


def _row(report: dict[str, Any], payload: bytes | None = None) -> dict[str, list[Any]]:
    return {"report": [json.dumps(report)], "payload": [payload or b""]}


class Inferring:
    """The second operator on a GPU cluster: runs the model stages on slices read before, `IN_FLIGHT` at once."""

    def __init__(self, box: Toolbox, names: list[str]) -> None:
        self.worker = SliceWorker(box, names)

    def __call__(self, batch: pa.Table) -> Iterator[dict[str, list[Any]]]:
        """Slices in, reports out; a shard's closing report passes through."""
        for text, payload in zip(batch["report"].to_pylist(), batch["payload"].to_pylist(), strict=True):
            report = json.loads(text)
            if payload:
                item = Work.from_json(report.pop("work"))
                try:
                    report = merged(report, self.worker.resume(item, payload, report["slice"]))
                except Exception as error:
                    report = {"token": item.token, "error": described(error, item)}
            yield {"report": [json.dumps(report)]}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One slice's report from both operators."""
    return {**first, "seconds": first["seconds"] | second["seconds"]}
