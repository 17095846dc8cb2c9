"""What the report shows of a training: of the proof of gain, and of a contest of finished selections."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.report.view import ArmView, CaptionView, ContestView, CostView, Curve, Difference, Metric, TrainingView

METRICS = (
    Metric("nll_per_token", "NLL per caption token", "lower", "nats, on held-out pairs"),
    Metric("token_edit_distance", "token edit distance", "lower", "generated against true caption, 0 to 1"),
    Metric("visual_use_gap", "visual-use gap", "higher", "NLL with another image minus with the true one"),
)
ON_DEMAND = (
    Metric("mir", "MIR", "lower", "log10 of the distances of visual and text states, summed over layers"),
    Metric("ima_gap", "IMA gap", "higher", "cosine of visual and text states, less that behind other images"),
    Metric("mutual_knn", "mutual neighbours", "higher", "of connector outputs and captions, at the best layer, 0 to 1"),
    Metric("group_balanced_nll", "group-balanced NLL", "lower", "mean over groups of source and concept"),
    Metric("worst_group_nll", "worst-group NLL", "lower", "of the group of source and concept with the highest"),
    Metric("spurious_strength", "spurious strength", "lower", "what a source says about the concept, 0 to 1"),
    Metric("style_leakage", "style leakage", "lower", "accuracy of naming the source from outputs, above chance"),
)
"""Shown where `train.metrics` asked for them."""
ARMS = {
    "raw": "the decodable pool in natural shares",
    "random": "a random part of the pool, as many samples as the curated set has distinct ones",
    "curated": "the exported shards",
}
CAPTIONS = 12
"""Held-out pictures shown with what is written about them."""
JUDGED = "Selections are held against the first one named; samples that show a held-out image are in no arm."


def training_view(training: dict[str, Any], images: Mapping[str, bytes | None]) -> TrainingView:
    """Of the proof of gain, as run.json holds it; `images` are those of `captioned`."""
    return _view(training, ARMS, {}, images)


def captioned(training: Mapping[str, Any]) -> list[str]:
    """Keys of the held-out samples whose generated captions are shown."""
    return [line["key"] for arm in list(training["arms"].values())[:1] for line in arm.get("captions", ())[:CAPTIONS]]


def contest_view(told: Mapping[str, Any], images: Mapping[str, bytes | None]) -> ContestView:
    """Of a contest, as contest.json holds it; `images` are those of `captioned`."""
    selections, training = told["selections"], told["training"]
    meanings = {name: _meaning(line) for name, line in selections.items()}
    costs = {name: _cost(line["cost"]) for name, line in selections.items()}
    judge = told["judge"]
    return ContestView(
        title="Selections compared",
        run=Path(told["folder"]).name,
        training=_view(training, meanings, costs, images, JUDGED),
        notes=tuple(told["notes"]),
        facts={
            "judged by recipe": judge["recipe"],
            "seed": judge["seed"],
            "held-out pairs": training["evaluation"]["pairs"],
            **told["machine"],
        },
        recipe_yaml=yaml.safe_dump(training["settings"], sort_keys=False),
    )


def _meaning(line: Mapping[str, Any]) -> str:
    recipe = f"recipe {line['recipe']}" if line["recipe"] else "an export"
    matches = line["matches_held_out"]
    return f"{recipe}; {matches} show a held-out image" if matches else recipe


def _cost(paid: Mapping[str, Any] | None) -> CostView | None:
    if paid is None:
        return None
    return CostView(paid["alone"]["seconds"], paid["shared"]["seconds"], paid["alone"]["money"], paid["whole"])


def _view(
    training: Mapping[str, Any],
    meanings: Mapping[str, str],
    costs: Mapping[str, CostView | None],
    images: Mapping[str, bytes | None],
    read: str = "",
) -> TrainingView:
    arms = tuple(_arm(name, facts, meanings.get(name, ""), costs.get(name)) for name, facts in training["arms"].items())
    facts = {name: training[name] for name in ("steps", "samples_per_run", "device", "workers")}
    facts |= {
        name: training["settings"][name] for name in ("batch", "learning_rate", "seeds", "vision", "language_model")
    }
    asked = tuple(metric for metric in ON_DEMAND if any(metric.name in arm.metrics for arm in arms))
    return TrainingView(
        arms, (*METRICS, *asked), tuple(_differences(training)), facts, tuple(_captions(training, images)), read
    )


def _captions(training: Mapping[str, Any], images: Mapping[str, bytes | None]) -> Iterable[CaptionView]:
    """Every arm was asked about the same samples, in the same order."""
    lines = {name: arm["captions"][:CAPTIONS] for name, arm in training["arms"].items() if arm.get("captions")}
    for together in zip(*lines.values(), strict=True):
        said = {name: (line["written"], line["distance"]) for name, line in zip(lines, together, strict=True)}
        yield CaptionView(images.get(together[0]["key"]), together[0]["true"], said)


def _differences(training: Mapping[str, Any]) -> Iterable[Difference]:
    for line in training["differences"]:
        if line["low"] is not None:
            ends = (line["mean"], line["low"], line["high"], tuple(line["per_seed"]))
            yield Difference(line["metric"], line["left"], line["right"], *ends)


def _arm(name: str, facts: Mapping[str, Any], meaning: str, cost: CostView | None) -> ArmView:
    runs = facts["runs"]
    curves = (
        Curve(
            run["seed"], np.array([point[0] for point in run["curve"]]), np.array([point[1] for point in run["curve"]])
        )
        for run in runs
    )
    names = [metric.name for metric in (*METRICS, *ON_DEMAND) if metric.name in facts["mean"]]
    values = {metric: tuple(run["metrics"][metric] for run in runs) for metric in names}
    return ArmView(name, tuple(curves), values, f"{meaning} ({facts['samples']} samples)", cost)
