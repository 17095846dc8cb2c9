"""95 % intervals by resampling images: captions of one image are not independent."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.noise import uniform_noise

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000


def bootstrap_interval(gaps: Floats, tokens: Floats, images: Sequence[str], seed: int) -> tuple[float, float]:
    """95 % percentile interval of sum(gaps) / sum(tokens), resampling images with all their captions.

    Args:
        gaps: (n,) nats per sample.
        tokens: (n,) label tokens per sample.
        images: (n,) image hashes; captions of one image are not independent and stay together.
        seed: of the resamples, which are the same for every connector.
    """
    names, group = np.unique(np.array(images), return_inverse=True)
    gap_sums, token_sums = np.bincount(group, gaps), np.bincount(group, tokens)
    noise = uniform_noise([str(draw) for draw in range(RESAMPLES * len(names))], seed, "visual use bootstrap")
    drawn = (noise.reshape(RESAMPLES, -1) * len(names)).astype(np.int64)
    means = gap_sums[drawn].sum(axis=1) / token_sums[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
