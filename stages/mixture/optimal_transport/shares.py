"""The fit of the mixer: shares by source, on a grid, and what they mean once sources have come or gone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.errors import CuveeError
from stages.atoms import Doubles
from stages.fit import Fit
from stages.mixture.optimal_transport.program import Optimum

GRID = 1_000_000
"""Shares are whole millionths: below that lie the solver's tolerances."""
REFIT = "run once without `fits:` to weigh anew, then pin that run"


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


def shares_of(fit: Fit, which: str, names: Sequence[str]) -> Doubles:
    """(S,) ideal or capped shares as fitted; those of sources that are gone go to the others in proportion.

    Where only sources are left that took what a cap left over, those shares are the ideal too.

    Raises:
        CuveeError: a source without a fitted share, or nothing is left to share in proportion.
    """
    fitted: dict[str, float] = fit.facts[which]
    if new := [name for name in names if name not in fitted]:
        raise CuveeError(f"source {new[0]!r} has no pinned weight, only {sorted(fitted)} had rows then; {REFIT}")
    shares = np.array([fitted[name] for name in names])
    if len(names) == len(fitted):
        return shares
    if not shares.any() and which == "ideal":
        return shares_of(fit, "capped", names)
    if not shares.any():
        raise CuveeError(f"the pinned weights leave nothing to {list(names)}, the sources that are left; {REFIT}")
    return on_grid(shares / shares.sum())


def gone(fit: Fit, names: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each source that had a share and is not among `names`."""
    left = {name: share for name, share in sorted(fit.facts["capped"].items()) if share and name not in names}
    return tuple(
        f"source {name!r} has no rows any more: its pinned share of {share:g} goes to the others in proportion"
        for name, share in left.items()
    )


def on_grid(shares: Doubles) -> Doubles:
    """Shares as whole millionths that sum to 1: largest remainder, ties to the one that comes first."""
    exact = shares * GRID
    whole = np.floor(exact)
    missing = int(GRID - whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    grid: Doubles = whole / GRID
    return grid
