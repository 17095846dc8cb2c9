"""The fit of the mixer: shares by source with their intervals, and what each source buys at the margin."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.atoms import Doubles
from stages.fit import Fit
from stages.mixture.fitted_shares import on_grid
from stages.mixture.optimal_transport.program import Optimum


def learned(names: Sequence[str], ideal: Optimum, capped: Optimum, bounds: Doubles, more: dict[str, Any]) -> Fit:
    """The optimum without caps, the one within them, the (S, 2) intervals of the first and what else is learned."""
    named = {"ideal": ideal, "capped": capped}
    shares = {name: dict(zip(names, on_grid(best.shares).tolist(), strict=True)) for name, best in named.items()}
    gap = {name: best.gap for name, best in named.items()}
    marginal = dict(zip(names, (capped.slopes - capped.slopes @ capped.shares).tolist(), strict=True))
    spans = dict(zip(names, bounds.round(6).tolist(), strict=True))
    return Fit(facts={**shares, "gap": gap, "intervals": spans, "marginal": marginal, **more})


def marginal_of(fit: Fit, names: Sequence[str], shares: Doubles) -> dict[str, float]:
    """By source, how the distance changes as its share grows at the others' cost; their mean by `shares` (S,) is 0."""
    slopes = np.array([fit.facts["marginal"][name] for name in names])
    return dict(zip(names, (slopes - slopes @ shares).round(9).tolist(), strict=True))
