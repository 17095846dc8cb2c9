"""Logit correction of next tokens: what a source says more often than others is explained by the source (ours).

    f_v + beta ln[ (n_vs + c q_v) / (n_s + c) / q_v ]        clamped to +-3; in training only

n_vs counts token v in captions of source s, q_v is its share among all captions. The term is the pointwise mutual
information of token and source: 0 where a source uses a token as often as all do. Adding log n_vs itself would correct
for the language as well, which the frozen model knows already. It ignores the context of a token, so it is an
approximation that has to earn its place against beta = 0 on held-out group-balanced losses.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.train.samples import Corpus

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
MOST = 3.0


def token_counts(corpora: Mapping[str, Corpus], vocabulary: int, end: int) -> Counts:
    """(S, V) label tokens per source, sources by name, end tokens of whole captions included."""
    counted = []
    for name in sorted(corpora):
        counts = np.bincount(corpora[name].tokens, minlength=vocabulary)
        counts[end] += int(corpora[name].whole.sum())
        counted.append(counts)
    return np.stack(counted).astype(np.int64)


def caption_log_prior(counts: Counts, smoothing: float, beta: float) -> Doubles:
    """(S, V) what is added to the logits of a source's samples, in [-3, 3]; 0 for tokens that no source uses.

    Args:
        counts: (S, V) n_vs.
        smoothing: c > 0, in tokens: how many of the pool's tokens each source is given beside its own.
        beta: in [0, 1]; 0 switches it off.

    Raises:
        CuveeError: smoothing or beta out of range, or no token at all.
    """
    if smoothing <= 0 or not 0 <= beta <= 1:
        raise CuveeError(f"found smoothing {smoothing} and beta {beta}, expected more than 0, and a number in [0, 1]")
    if not counts.sum():
        raise CuveeError("the sources' captions hold no token, so none is more frequent in one of them")
    pooled = counts.sum(axis=0) / counts.sum()
    used = pooled > 0
    ratio = np.ones(counts.shape)
    smoothed = (counts + smoothing * pooled) / (counts.sum(axis=1, keepdims=True) + smoothing)
    ratio[:, used] = smoothed[:, used] / pooled[used]
    corrections: Doubles = np.clip(beta * np.log(ratio), -MOST, MOST)
    return corrections
