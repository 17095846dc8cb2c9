"""The model card of a trained connector: what it is, what it learned from, what it is worth, and what it is not for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.sidecars import replacing
from stages.train.connector import CARD
from stages.train.differences import paired
from stages.train.settings import TrainSettings

README = "README.md"
METRICS = {
    "nll_per_token": "NLL per caption token, nats",
    "token_edit_distance": "token edit distance of greedy captions, 0 to 1",
    "visual_use_gap": "NLL with another image minus with the true one, nats",
}
USUAL = ("budget", "batch", "learning_rate", "warmup", "floor", "weight_decay", "max_tokens", "visual_tokens")
"""Settings that are told whatever their value."""
MODELS = ("vision_model", "vision_pretrained", "language_model")


def write_cards(folder: Path, settings: TrainSettings, data: Mapping[str, str], told: Mapping[str, Any]) -> None:
    """Write a README.md beside every connector of a comparison.

    Args:
        folder: of the comparison.
        settings: its settings.
        data: arm -> content address of its samples.
        told: its outcome.
    """
    for arm, facts in told["arms"].items():
        for run in facts["runs"]:
            place = folder / "connectors" / f"{arm}-{run['seed']}"
            if (place / CARD).is_file():
                title = f"{arm}, seed {run['seed']}"
                text = card(place, settings, title, data.get(arm, ""), facts, run, told["evaluation"])
                with replacing(place / README) as temporary:
                    temporary.write_text(text)


def card(
    place: Path, settings: TrainSettings, title: str, data: str, arm: Mapping[str, Any], run: Mapping[str, Any],
    held: Mapping[str, Any],
) -> str:  # fmt: skip
    """Markdown, from facts alone: the same every time."""
    facts = json.loads((place / CARD).read_text())
    connector = facts["connector"]
    kind = connector["kind"] if isinstance(connector, dict) else connector
    parts = [
        f"# Vision-language connector ({title})",
        f"A connector (`{kind}`) between a frozen image tower and a frozen language model, trained by cuvee on pairs "
        "of images and captions; neither model is in this folder. `connector.safetensors` holds the weights, "
        "`connector.json` what is needed to build it again and the models it belongs to; others are refused.",
        _models(settings, facts),
        _data(data, arm),
        _settings(settings, connector),
        _metrics(arm["runs"], run, held),
        "## Intended use\n\nTo caption images, and to measure what a set of pairs is worth to a model that learns from "
        "it. It stands behind just this tower and before just this language model.",
        "## Limits\n\nIt says what its training captions say, their mistakes and prejudices included, and knows no "
        "more of the world than its two frozen models. Nothing was done against false or offensive captions. The "
        "metrics hold for held-out pairs like those above, not for other images.",
    ]
    return "\n\n".join(parts) + "\n"


def _models(settings: TrainSettings, facts: Mapping[str, Any]) -> str:
    tower = Path(settings.vision_model.removeprefix("local-dir:")).name
    pretrained = f", {Path(settings.vision_pretrained).name}" if settings.vision_pretrained else ""
    language = Path(settings.language_model).name
    return (
        "## Models\n\n| model | name | identity |\n| --- | --- | --- |\n"
        f"| image tower | {tower}{pretrained} | `{facts['vision']}` |\n"
        f"| language model | {language} | `{facts['language_model']}` |"
    )


def _data(address: str, arm: Mapping[str, Any]) -> str:
    named = f"Samples by content address `{address}`: " if address else ""
    return f"## Data\n\n{named}{arm['samples']} samples of {arm['distinct_images']} distinct images."


def _settings(settings: TrainSettings, connector: Any) -> str:
    fields = TrainSettings.model_fields
    facts = {name: value for name, value in settings.identity().items() if name in fields and name not in MODELS}
    told = {n: v for n, v in sorted(facts.items()) if n in USUAL or getattr(settings, n) != fields[n].default}
    told["connector"] = connector  # with every width
    told["budget"] = {unit: amount for unit, amount in facts["budget"].items() if amount is not None}
    rows = "\n".join(f"| `{name}` | `{json.dumps(value)}` |" for name, value in sorted(told.items()))
    head = "## Settings\n\nThe usual ones, and what differs from the default."
    return f"{head}\n\n| setting | value |\n| --- | --- |\n{rows}"


def _metrics(runs: Sequence[Mapping[str, Any]], run: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    rows = []
    for name, meaning in METRICS.items():
        values = [each["metrics"][name] for each in runs if name in each["metrics"]]
        if name in run["metrics"] and values:
            rows.append(f"| {meaning} | {_own(run['metrics'], name)} | {_over_seeds(values)} |")
    head = f"On {held['pairs']} held-out pairs of {held['images']} images, {held['generated']} captions generated."
    table = "| metric | this connector | over seeds |\n| --- | --- | --- |\n" + "\n".join(rows)
    ends = "In brackets 95 % intervals: over images for this connector, over seeds beside."
    return f"## Metrics\n\n{head} {ends}\n\n{table}"


def _own(metrics: Mapping[str, float], name: str) -> str:
    ends = f" [{metrics['visual_use_low']:.4f}, {metrics['visual_use_high']:.4f}]" if name == "visual_use_gap" else ""
    return f"{metrics[name]:.4f}{ends}"


def _over_seeds(values: Sequence[float]) -> str:
    found = paired(values, [0.0] * len(values))
    ends = "" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]"
    return f"{found['mean']:.4f}{ends} ({len(values)})"
