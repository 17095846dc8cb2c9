"""Modality Integration Rate: how far visual states are from text states, layer by layer (arXiv:2410.07167, section 3).

    alpha_k = s / sum_j ||t_kj||                      one scale per layer, for both modalities: text has mean norm 1
    FID_k   = ||mu_v - mu_t||^2 + Tr(S_v + S_t - 2 (S_v S_t)^(1/2))
    MIR     = log10 sum_k FID_k

over the layers that hold both; embeddings are no layer. Before FID, a state whose norm is more than three standard
deviations from the median norm of its modality becomes the modality's median state, dimension by dimension.

The trace is exact. The `fast` mode of the released code is not: its iteration starts at a fixed point and leaves the
cross term out, so values of that mode are no values of this one. Standard deviation and covariances divide by n - 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
DEVIATIONS = 3


def mir(layers: Sequence[tuple[Floats, Floats]]) -> float:
    """MIR of (r, d) visual and (s, d) text states per layer, pooled over pairs; lower is better.

    Raises:
        CuveeError: no layer, fewer than two states in one, states that are not finite, or modalities without any
            difference at all, whose logarithm does not exist.
    """
    return mir_of_distances([layer_distance(visual, text) for visual, text in layers])


def mir_of_distances(distances: Sequence[float]) -> float:
    """log10 of the sum of FID_k, layer by layer.

    Raises:
        CuveeError: no layer, or no distance in any.
    """
    if not distances:
        raise CuveeError("MIR needs at least one layer that holds visual and text states; found none")
    if (total := math.fsum(distances)) <= 0:
        raise CuveeError("visual and text states are the same in every layer, so MIR has no value")
    return math.log10(total)


def layer_distance(visual: Floats, text: Floats) -> float:
    """FID_k of one layer's (r, d) visual and (s, d) text states, scaled and without outliers; >= 0.

    Raises:
        CuveeError: fewer than two states, states that are not finite, or text states that are all zero.
    """
    seen, said = visual.astype(np.float64), text.astype(np.float64)
    if min(len(seen), len(said)) < 2:
        raise CuveeError(f"found {len(seen)} visual and {len(said)} text states in a layer, expected 2 or more each")
    if not (np.isfinite(seen).all() and np.isfinite(said).all()):
        raise CuveeError("a layer's states are not finite; train in another precision or at a lower rate")
    mean_norm = float(np.linalg.norm(said, axis=1).mean())
    if mean_norm == 0:
        raise CuveeError("every text state of a layer is zero, so nothing can be scaled by them")
    return frechet_distance(without_outliers(seen / mean_norm), without_outliers(said / mean_norm))


def without_outliers(states: Doubles) -> Doubles:
    """(n, d) states; those with | ||x|| - median norm | > 3 std of the norms are the median state instead."""
    norms = np.linalg.norm(states, axis=1)
    far = np.abs(norms - np.median(norms)) > DEVIATIONS * norms.std(ddof=1)
    return np.where(far[:, None], np.median(states, axis=0), states) if far.any() else states


def frechet_distance(left: Doubles, right: Doubles) -> float:
    """Squared Frechet distance of the Gaussians with the moments of (r, d) and (s, d) rows; >= 0, any rank.

    Tr (S_l S_r)^(1/2) is the sum of the roots of the eigenvalues of S_l^(1/2) S_r S_l^(1/2). With S = X'X those are
    the squared singular values of X_l X_r', also where r or s < d, so that the roots of no rounded zeros are summed.
    """
    difference = left.mean(axis=0) - right.mean(axis=0)
    mine, theirs = _root(left), _root(right)
    cross = np.linalg.svd(mine @ theirs.T, compute_uv=False).sum()
    distance = difference @ difference + np.square(mine).sum() + np.square(theirs).sum() - 2 * cross
    return max(0.0, float(distance))


def _root(states: Doubles) -> Doubles:
    """X of at most d rows with X'X the covariance of (n, d) states."""
    centred: Doubles = (states - states.mean(axis=0)) / math.sqrt(len(states) - 1)
    if len(states) <= states.shape[1]:
        return centred
    triangle: Doubles = np.linalg.qr(centred, mode="r")  # type: ignore[assignment]
    return triangle
