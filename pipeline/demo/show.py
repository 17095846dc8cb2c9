"""`cuvee demo`: generate, curate, train, and hold the outcome against the planted truth."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.cluster import Cluster
from pipeline.demo.corpus import write_corpus
from pipeline.demo.recipe import demo_recipe
from pipeline.demo.spoken import named
from pipeline.demo.truth import compare_with_truth
from pipeline.fingerprints import rounded
from pipeline.lock import holding
from pipeline.present import present
from pipeline.proof import CURATED
from pipeline.report.view import Check
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from pipeline.score import Progress
from pipeline.sidecars import write_json
from schemas.tables import POOL_ROLE

SEED = 0
SECONDS = 60
LEAST = {"colours": 0.75, "shapes": 0.35}
"""Of what held-out pictures show; one shape in nine would be right by chance."""


def show(folder: Path, pairs: int, plants: bool, workers: int | None, progress: Progress) -> Outcome:
    """Run the demo in `folder` and write its report with the checks against the truth.

    Raises:
        CuveeError: the folder holds something else.
    """
    truth = write_corpus(folder / "corpus", pairs=pairs, seed=SEED, plants=plants)
    resolved = resolve(demo_recipe(folder))
    with holding(resolved.workspace.root) as held:
        resolved.workspace.held_by = held.run
        with Cluster(workers=workers) as cluster:
            outcome = run(resolved, cluster, progress=progress)
        checks = _checks(outcome, truth, plants)
        present(outcome, checks)
        finish(outcome)
    return outcome


def _checks(outcome: Outcome, truth: Path, plants: bool) -> list[Check]:
    """Hold the run against the planted truth; the run's record gets the comparison."""
    scores = outcome.chosen.table.scores(POOL_ROLE, ["clip_score"]).collect()
    found = compare_with_truth(outcome.ledger, scores, pl.read_parquet(truth))
    checks = [*(_planted(found) if plants else ()), *_gain(outcome.training, plants), *_spoken(outcome.training)]
    outcome.record["truth"] = rounded(found)
    outcome.record["checks"] = [vars(check) for check in checks]
    write_json(rounded(outcome.record), outcome.folder / "run.json")
    return checks


def _planted(found: dict[str, Any]) -> Iterable[Check]:
    auc = found["mismatched_auc"]
    yield Check("mismatched captions, AUC of clip_score", _text(auc), ">= 0.95", auc is not None and auc >= 0.95)
    for name in ("exact_duplicates", "near_duplicates"):
        for side in ("recall", "precision"):
            value = found[name][side]
            yield Check(
                f"{name.replace('_', ' ')}, {side}", _text(value), ">= 0.99", value is not None and value >= 0.99
            )
    corrupt = found["corrupt"]
    yield Check("corrupt files quarantined", _text(corrupt["recall"]), "all", corrupt["recall"] == 1)
    yield Check("quarantined files that are corrupt", _text(corrupt["precision"]), "all", corrupt["precision"] == 1)


def _text(value: float | None) -> str:
    return "nothing to judge" if value is None else f"{value:.4f}"


def _gain(training: dict[str, Any] | None, plants: bool) -> Iterable[Check]:
    """The difference is a claim where defects were planted; without them it is only printed."""
    for line in training["differences"] if training else []:
        if line["metric"] != "nll_per_token" or line["low"] is None:
            continue
        text = f"{line['mean']:+.4f} nats per token, 95 % interval [{line['low']:+.4f}, {line['high']:+.4f}]"
        claimed = plants and line["right"] == "raw"
        name = f"NLL on held-out pairs, {line['left']} - {line['right']}"
        yield Check(name, text, "below 0" if claimed else "not claimed", line["high"] < 0 if claimed else None)


def _spoken(training: dict[str, Any] | None) -> Iterable[Check]:
    """What the curated connector of the first seed says about held-out pictures, and how long one takes to train."""
    if training is None:
        return
    arms = training["arms"].values()
    seconds = training["seconds"] * training["workers"] / sum(len(arm["runs"]) for arm in arms)
    name = "seconds to train and judge one connector on one core, mean"
    yield Check(name, f"{seconds:.1f}", f"< {SECONDS}", seconds < SECONDS)
    lines = training["arms"][CURATED].get("captions", [])
    for part, share in named(lines).items():
        least = LEAST.get(part)
        name = f"{part} named in {len(lines)} generated captions, curated"
        yield Check(name, f"{share:.3f}", f">= {least}" if least else "", share >= least if least else None)
