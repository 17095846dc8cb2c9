"""Shares by source in a fit, and what they mean once sources have come or gone.

The facts of such a fit hold `ideal` and `capped`: source -> share, each summing to 1.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.fit import Fit

Doubles = npt.NDArray[np.float64]

GRID = 1_000_000
"""Shares are whole millionths: below that lie the solvers' tolerances."""
REFIT = "run once without `fits:` to weigh anew, then pin that run"


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
