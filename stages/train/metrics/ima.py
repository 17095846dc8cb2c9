"""Implicit multimodal alignment: cosine of visual and text states in a layer (arXiv:2405.16700).

Raw cosines mislead twice. Every state of a model lies in a narrow cone, so that any two have a large cosine; and text
behind an image attends to it, so that its states take after those of any image, aligned or not. What counts is the
difference from mismatched pairs: the same captions behind other images, each pair in a pass of its own.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ima:
    """Cosines of one layer."""

    matched: float
    """Mean over pairs of the cosine of mean visual and mean text state, in [-1, 1]."""
    mismatched: float
    """The same behind other images, in [-1, 1]."""
    gap: float
    """matched - mismatched, in [-2, 2]; higher is better."""
    crossed: float
    """Mean over all n (n - 1) pairs of an image's states and another matched pair's text states, in [-1, 1]."""
    of_means: float
    """Cosine of the two modalities' mean states over all pairs, in [-1, 1]."""

    def facts(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def ima(matched: tuple[Doubles, Doubles], mismatched: tuple[Doubles, Doubles]) -> Ima:
    """Alignment of (n, d) mean visual and (n, d) mean text states, a row per pair.

    crossed = (sum_i v_i . sum_j t_j - sum_i v_i . t_i) / (n (n - 1)) for unit rows v and t.

    Args:
        matched: captions behind their own images.
        mismatched: captions behind other images.

    Raises:
        CuveeError: fewer than two pairs, other shapes, or a state that is zero or not finite.
    """
    (v, t), (other_v, other_t) = ((unit_rows(a), unit_rows(b)) for a, b in (matched, mismatched))
    if v.shape != t.shape or other_v.shape != other_t.shape or min(len(v), len(other_v)) < 2:
        raise CuveeError(f"found states of shapes {v.shape} and {t.shape}, expected two equal ones of 2 rows or more")
    own, other = float((v * t).sum()), float((other_v * other_t).sum(axis=1).mean())
    crossed = (float(v.sum(axis=0) @ t.sum(axis=0)) - own) / (len(v) * (len(v) - 1))
    means = unit_rows(np.stack([side.mean(axis=0) for side in matched]))
    return Ima(own / len(v), other, own / len(v) - other, crossed, float(means[0] @ means[1]))


def unit_rows(states: Doubles) -> Doubles:
    """(n, d) rows over their norms, in float64.

    Raises:
        CuveeError: a row is zero or not finite.
    """
    states = np.asarray(states, np.float64)
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise CuveeError("found a state that is zero or not finite, which has no direction")
    unit: Doubles = states / norms
    return unit
