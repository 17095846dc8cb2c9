"""Spherical k-means on a sample, then every row to its nearest centroid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.noise import uniform_noise
from stages.vectors import Doubles, Vectors, blocks, cosines, cosines_with, norms

Places = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

ITERATIONS = 25
TRAINING_ROWS_PER_CLUSTER = 256
BLOCK_ROWS = 1024
SPARE = 8
"""Centroids that an index names beyond those asked for, to be ranked again."""


def training_rows(uids: Sequence[str], clusters: int, seed: int, purpose: str) -> Places:
    """The 256 k rows with the smallest hash(seed, uid), in uid order where the uids are: what k-means is trained on."""
    order = np.argsort(uniform_noise(uids, seed, purpose), kind="stable")
    return np.sort(order[: min(clusters, len(uids)) * TRAINING_ROWS_PER_CLUSTER])


def fit_centroids(embeddings: Vectors, uids: Sequence[str], clusters: int, seed: int, purpose: str) -> Vectors:
    """(k, d) float16 unit centroids, k = min(clusters, n), of (n, d) rows in uid order.

    Trained on a sample that is drawn by uid, in one thread (sums in another order give other bits): neither shards nor
    workers have a say.
    """
    k = min(clusters, len(embeddings))
    return train_centroids(embeddings[training_rows(uids, k, seed, purpose)], k, seed)


def train_centroids(sample: Vectors, clusters: int, seed: int) -> Vectors:
    """(k, d) float16 unit centroids, k = min(clusters, n), of the (n, d) rows to train on, by faiss, in one thread."""
    import faiss

    training = np.ascontiguousarray(sample, np.float32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            training.shape[1],
            min(clusters, len(training)),
            niter=ITERATIONS,
            seed=seed % 2**31,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=TRAINING_ROWS_PER_CLUSTER,
        )
        kmeans.train(training)
    finally:
        faiss.omp_set_num_threads(threads)
    centroids: Vectors = np.asarray(kmeans.centroids, np.float16)
    return centroids


def nearest_centroids(embeddings: Vectors, centroids: Vectors) -> tuple[Places, Doubles]:
    """(n,) number of the centroid with the largest cosine (the first of equals), and that cosine."""
    number, cosine = probed_centroids(embeddings, centroids, 1)
    return number[:, 0], cosine[:, 0]


def probed_centroids(embeddings: Vectors, centroids: Vectors, probe: int) -> tuple[Places, Doubles]:
    """(n, p) numbers of the p = min(probe, k) centroids with the largest cosines (first of equals), and those cosines.

    A faiss index, on a GPU where there is one, names a few candidates by float32; they are ranked by exact cosines. A
    row of which that cannot be known to be right, within the index's rounding error, is compared with all centroids. So
    the result is the exact one on any device.
    """
    k, width = centroids.shape
    probe = min(probe, k)
    number = np.zeros((len(embeddings), probe), np.int64)
    cosine = np.zeros((len(embeddings), probe))
    if not len(embeddings):
        return number, cosine
    index = _index(unit_singles(centroids))
    asked = min(probe + SPARE, k)
    for rows in blocks(len(embeddings), BLOCK_ROWS):
        scores, named = index.search(unit_singles(embeddings[rows]), asked)
        named = np.sort(named, axis=1)
        exact = cosines_with(embeddings[rows], centroids, named)
        number[rows], cosine[rows] = _best(exact, named, probe)
        unsure = np.flatnonzero((cosine[rows, -1] <= scores[:, -1] + rounding_error(width)) & (asked < k))
        if len(unsure):
            exact = cosines(embeddings[rows][unsure], centroids)
            every = np.broadcast_to(np.arange(k), exact.shape)
            number[rows][unsure], cosine[rows][unsure] = _best(exact, every, probe)
    return number, cosine


def unit_singles(embeddings: Vectors) -> Singles:
    """The rows in float32, divided by their norms; rows of zeros stay."""
    lengths = np.maximum(norms(embeddings), np.finfo(np.float16).smallest_subnormal)[:, None]
    return np.ascontiguousarray(embeddings / lengths, np.float32)


def rounding_error(width: int) -> float:
    """How far a float32 dot product of two unit vectors is from the exact one at most: (d + 3) 2^-24, with a margin."""
    return (width + 8) * 2.0**-23


def _index(vectors: Singles) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    if faiss.get_num_gpus() > 0:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    return index


def _best(exact: Doubles, named: Places, probe: int) -> tuple[Places, Doubles]:
    """The first `probe` by (cosine, highest first, then number); `named` ascends in each row."""
    order = np.argsort(-exact, axis=1, kind="stable")[:, :probe]
    return np.take_along_axis(named, order, axis=1), np.take_along_axis(exact, order, axis=1)
