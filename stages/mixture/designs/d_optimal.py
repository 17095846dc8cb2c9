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
MOST_EXCHANGES = 1000


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
    chosen: list[int] = []
    for _ in range(count):
        variances = np.einsum("nk,kl,nl->n", rows, inverse, rows, optimize=True)
        variances[chosen] = -np.inf
        chosen.append(int(np.argmax(variances)))
        along = inverse @ rows[chosen[-1]]
        inverse -= np.outer(along, along) / (1 + rows[chosen[-1]] @ along)
    return np.array(chosen)


def exchange(rows: Doubles, chosen: Integers) -> Integers:
    """Make the exchange that gains most until none does.

    Args:
        rows: (n, k) terms of all candidates, of rank k.
        chosen: distinct row numbers, at least k.
    """
    chosen = chosen.copy()
    for _ in range(MOST_EXCHANGES):
        design = rows[chosen]
        information = design.T @ design
        if np.linalg.cond(information) > 1e14:
            information = information + RIDGE * np.eye(len(information))
        half = np.linalg.solve(information, rows.T)
        variance = np.einsum("nk,kn->n", rows, half)
        gain = variance[None, :] * (1 - variance[chosen])[:, None] - variance[chosen][:, None] + (design @ half) ** 2
        gain[:, chosen] = -np.inf
        out, into = divmod(int(gain.argmax()), len(rows))
        if gain[out, into] <= 1e-9:
            break
        chosen[out] = into
    return chosen
