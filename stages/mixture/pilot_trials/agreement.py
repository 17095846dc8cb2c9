"""How well a law says what runs with other mixtures reached, in the numbers a reader asks for first."""

from typing import Any

import numpy as np

from stages.mixture.pilot_trials.laws import MetricFit


def agreement(fit: MetricFit) -> dict[str, Any]:
    """Name -> number or words: how mixtures left out are ranked and hit, by other laws too; how far noise grows."""
    from scipy.stats import spearmanr

    measured, predicted = fit.runs.values, fit.held_out
    ranks = spearmanr(measured, predicted).statistic if np.ptp(measured) > 0 and np.ptp(predicted) > 0 else np.nan
    budgets = sorted({int(budget) for budget in fit.runs.budgets})
    facts = {
        "rank correlation": round(float(ranks), 3) if np.isfinite(ranks) else "all equal",
        "mean error": float(np.abs(measured - predicted).mean()),
        "spread of the runs": fit.runs.spread,
        "runs": f"{len(measured)} of {fit.runs.mixtures} mixtures",
        "budgets": ", ".join(f"{budget:,}" if budget else "unknown" for budget in budgets),
    }
    others = ", ".join(f"{name} {score:.3g}" for name, score in fit.scores.items() if name != fit.name)
    found = {**facts, "error of other laws": others} if others else facts
    return found if fit.projection is None else {**found, "projection": fit.projection.sentence()}
