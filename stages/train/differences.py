"""What the comparison says: per arm the mean over seeds, between arms the paired per-seed difference."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.train.metrics.evaluation import METRICS
from stages.train.metrics.on_demand import COMPARED


def paired(left: Sequence[float], right: Sequence[float]) -> dict[str, Any]:
    """Mean of left - right over seeds with its 95 % t-interval; null bounds for fewer than two seeds.

    The interval is mean +- t(0.975, n - 1) s / sqrt(n), s the standard deviation of the differences: seeds share
    initial weights between arms, so the pairing takes that part of the noise out.
    """
    per_seed = [a - b for a, b in zip(left, right, strict=True)]
    mean, half = float(np.mean(per_seed)), None
    if len(per_seed) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(per_seed) - 1)) * float(np.std(per_seed, ddof=1)) / math.sqrt(len(per_seed))
    bounds = {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    return {"mean": mean, **bounds, "per_seed": per_seed}


def summary(results: Sequence[dict[str, Any]], arms: Sequence[str], against: str | None = None) -> dict[str, Any]:
    """Finished jobs by arm, and differences in every metric.

    They are the last arm's from each of the others, or, where an arm is named by `against`, each other arm's from it.
    """
    by_arm = {arm: sorted((r for r in results if r["arm"] == arm), key=lambda r: int(r["seed"])) for arm in arms}
    others = [arm for arm in arms if arm != (against or arms[-1])]
    pairs = [(arm, against) if against else (arms[-1], arm) for arm in others]
    return {
        "arms": {arm: _arm(runs) for arm, runs in by_arm.items()},
        "differences": [
            {"metric": metric, "left": left, "right": right, **paired(values, _values(by_arm[right], metric))}
            for metric in (*METRICS, *COMPARED)
            for left, right in pairs
            if (values := _values(by_arm[left], metric)) and _values(by_arm[right], metric)
        ],
        "evaluation": results[0]["evaluation"],
    }


def _values(runs: Sequence[dict[str, Any]], metric: str) -> list[float]:
    """Of every run; none where a run has no value, e.g. a connector whose groups are all too small to be the worst."""
    found = [run["metrics"][metric] for run in runs if metric in run["metrics"]]
    return found if len(found) == len(runs) else []


def _arm(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    facts = {name: runs[0][name] for name in ("samples", "distinct_images", "unusable")}
    told: tuple[str, ...] = ("captions", "feature_bytes")
    first = {name: runs[0][name] for name in told if name in runs[0]}
    rare = ("log", "schedule", "replay", "exact_captions", "examined")
    kept = ("seed", "curve", "metrics", *(name for name in rare if name in runs[0]))
    means = {metric: float(np.mean(_values(runs, metric))) for metric in (*METRICS, *COMPARED) if _values(runs, metric)}
    return {**facts, **first, "mean": means, "runs": [{name: run[name] for name in kept} for run in runs]}
