"""D-optimal designs: the mixtures that make log det X'X largest, by Fedorov's exchange (1972).

Models: `linear` in p, terms p_i; `quadratic`, Scheffe's terms p_i and p_i p_j (1958). Neither has an intercept, since
shares add up to 1. An exchange of mixture i for candidate j multiplies the determinant by (1 + v_j)(1 - v_i) + v_ij^2
with v_ij = f_i' (X'X)^-1 f_j; the best of all pairs is made until none gains. A mixture stands in a design once:
repeating it is what seeds are for.
"""

from typing import Literal

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.designs.candidates import candidates
from stages.mixture.designs.design import Design
from stages.mixture.designs.region import Doubles, Region
from stages.mixture.designs.spread import Integers

RIDGE = 1e-6
"""Added to X'X while there are fewer mixtures than terms."""
WORST_CONDITION = 1e14
MOST_EXCHANGES = 1000
AFRESH = 50
"""Exchanges after which rounding errors of updates are swept away."""
LEAST_GAIN = 1e-9


class DOptimal(Design):
    """Mixtures from which a law's coefficients are known best."""

    kind: Literal["d_optimal"] = "d_optimal"
    model: Literal["linear", "quadratic"] = "quadratic"

    def least(self, size: int) -> int:
        """As many as the model has coefficients."""
        return size if self.model == "linear" else size * (size + 1) // 2

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S).

        Raises:
            CuveeError: the bounds leave too few mixtures to tell the model's coefficients apart.
        """
        points = candidates(region, seed)
        rows = terms(points, self.model)
        if len(points) < count or np.linalg.matrix_rank(rows) < rows.shape[1]:
            raise CuveeError(
                f"the bounds leave {len(points)} mixtures with {np.linalg.matrix_rank(rows)} of {rows.shape[1]} "
                f"coefficients of the {self.model} model apart; loosen them, or design by dirichlet"
            )
        return points[exchange(rows, greedy(rows, count))]


def terms(mixtures: Doubles, model: str) -> Doubles:
    """(n, k) the model's terms of (n, S) mixtures: k is S, or S (S + 1) / 2."""
    if model == "linear":
        return mixtures
    left, right = np.triu_indices(mixtures.shape[1], 1)
    return np.hstack([mixtures, mixtures[:, left] * mixtures[:, right]])


def log_det(rows: Doubles) -> float:
    """log det X'X of (n, k); -inf where coefficients cannot be told apart."""
    sign, value = np.linalg.slogdet(rows.T @ rows)
    return float(value) if sign > 0 else -np.inf


def greedy(rows: Doubles, count: int) -> Integers:
    """(count,) row numbers, each the one that raises the determinant most, given those before it."""
    inverse = np.eye(rows.shape[1]) / RIDGE
    variances = (rows**2).sum(axis=1) / RIDGE
    chosen: list[int] = []
    for _ in range(count):
        variances[chosen] = -np.inf
        chosen.append(int(np.argmax(variances)))
        along = inverse @ rows[chosen[-1]]
        values = rows @ along
        inverse -= np.outer(along, along) / (1 + values[chosen[-1]])
        variances -= values**2 / (1 + values[chosen[-1]])
    return np.array(chosen)


def exchange(rows: Doubles, chosen: Integers) -> Integers:
    """Make the exchange that gains most until none does.

    Args:
        rows: (n, k) terms of all candidates, of rank k.
        chosen: distinct row numbers, at least k.
    """
    chosen = chosen.copy()
    for number in range(MOST_EXCHANGES):
        if number % AFRESH == 0:
            known = _Variances(rows, chosen)
        own = known.variance[chosen][:, None]
        gain = known.variance[None, :] * (1 - own) - own + known.across**2
        gain[:, chosen] = -np.inf
        out, into = divmod(int(gain.argmax()), len(rows))
        if gain[out, into] <= LEAST_GAIN:
            break
        known.move(into, 1.0)
        known.move(int(chosen[out]), -1.0)
        chosen[out] = into
        known.across[out] = rows @ (known.inverse @ rows[into])
    return chosen


class _Variances:
    """v_ij = f_i' (X'X)^-1 f_j of all candidates j, i = j or i in the design, kept current by rank-one updates."""

    def __init__(self, rows: Doubles, chosen: Integers) -> None:
        information = rows[chosen].T @ rows[chosen]
        if np.linalg.cond(information) > WORST_CONDITION:
            information = information + RIDGE * np.eye(len(information))
        self.rows = rows
        self.inverse: Doubles = np.asarray(np.linalg.inv(information), np.float64)
        self.across: Doubles = rows[chosen] @ self.inverse @ rows.T
        self.variance: Doubles = ((rows @ self.inverse) * rows).sum(axis=1)

    def move(self, row: int, sign: float) -> None:
        """Add (1) a candidate to the design, or take (-1) it away, by the formula of Sherman and Morrison."""
        along = self.inverse @ self.rows[row]
        values = self.rows @ along
        scale = float(sign / (1 + sign * values[row]))
        self.inverse -= scale * np.outer(along, along)
        self.across -= np.outer(scale * self.across[:, row], values)
        self.variance -= scale * values**2
