"""Implicit multimodal alignment: cosine of visual and text states in a layer (arXiv:2405.16700).

Every state of a model lies in a narrow cone, so that any two have a large cosine. What counts is the difference from
mismatched pairs: the mean cosine of each image with all other images' texts, exactly, not with drawn ones.
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
    """Mean over all n (n - 1) mismatched pairs, in [-1, 1]."""
    gap: float
    """matched - mismatched, in [-2, 2]; higher is better."""
    of_means: float
    """Cosine of the two modalities' mean states over all pairs, in [-1, 1]."""

    def facts(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def ima(visual: Doubles, text: Doubles) -> Ima:
    """Alignment of (n, d) mean visual and (n, d) mean text states, a row per image.

    mismatched = (sum_i v_i . sum_j t_j - sum_i v_i . t_i) / (n (n - 1)) for unit rows v and t.

    Raises:
        CuveeError: fewer than two pairs, other shapes, or a state that is zero or not finite.
    """
    v, t = unit_rows(visual), unit_rows(text)
    if v.shape != t.shape or len(v) < 2:
        raise CuveeError(f"found states of shapes {v.shape} and {t.shape}, expected two equal ones of 2 rows or more")
    own = float((v * t).sum())
    mismatched = (float(v.sum(axis=0) @ t.sum(axis=0)) - own) / (len(v) * (len(v) - 1))
    means = unit_rows(np.stack([np.mean(visual, axis=0), np.mean(text, axis=0)]).astype(np.float64))
    return Ima(own / len(v), mismatched, own / len(v) - mismatched, float(means[0] @ means[1]))


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
