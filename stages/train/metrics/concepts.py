"""Concepts without a word: clusters of the frozen tower's features, the same for every arm and seed of a comparison."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.clusters import nearest_centroids, train_centroids
from stages.train.image_features import ImageFeatures, mean_tokens

Integers = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]
CONCEPTS, PER_CONCEPT = 10, 20
"""Clusters at most; held-out images that one of them needs on average."""


def concepts_of(features: ImageFeatures, held: Sequence[str], asked: Sequence[str], seed: int) -> Integers:
    """(n,) number of the cluster of each asked image.

    Spherical k-means on the held-out images' mean tokens, less their common mean: features of one tower have much in
    common. Ten clusters, fewer where there are less than 200 held-out images.

    Args:
        features: tokens of all images.
        held: hashes of the held-out images.
        asked: (n,) hashes.
        seed: of the clusters.
    """
    distinct = sorted(set(held))
    means = mean_tokens(features, distinct)
    centre = means.mean(axis=0)
    clusters = max(1, min(CONCEPTS, len(distinct) // PER_CONCEPT))
    centroids = train_centroids(_unit(means - centre), clusters, seed)
    numbers, _ = nearest_centroids(_unit(mean_tokens(features, asked) - centre), centroids)
    return numbers


def _unit(rows: npt.NDArray[np.float64]) -> Halves:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float16)
