"""Spherical k-means on a sample, then every row to its nearest centroid."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.noise import uniform_noise
from stages.vectors import Doubles, Vectors, blocks, cosines

Places = npt.NDArray[np.int64]

ITERATIONS = 25
TRAINING_ROWS_PER_CLUSTER = 256
BLOCK_ROWS = 1024


def training_rows(uids: Sequence[str], clusters: int, seed: int, purpose: str) -> Places:
    """The 256 k rows with the smallest hash(seed, uid), in uid order where the uids are: what k-means is trained on."""
    order = np.argsort(uniform_noise(uids, seed, purpose), kind="stable")
    return np.sort(order[: clusters * TRAINING_ROWS_PER_CLUSTER])


def fit_centroids(embeddings: Vectors, uids: Sequence[str], clusters: int, seed: int, purpose: str) -> Vectors:
    """(k, d) float16 unit centroids, k = min(clusters, n), of (n, d) rows in uid order.

    faiss, one thread (sums in another order give other bits), trained on a sample that is drawn by uid: neither shards
    nor workers have a say.
    """
    import faiss

    k = min(clusters, len(embeddings))
    training = np.ascontiguousarray(embeddings[training_rows(uids, k, seed, purpose)], np.float32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            training.shape[1],
            k,
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
    number = np.zeros(len(embeddings), np.int64)
    cosine = np.zeros(len(embeddings))
    for rows in blocks(len(embeddings), BLOCK_ROWS):
        found = cosines(embeddings[rows], centroids)
        number[rows] = found.argmax(axis=1)
        cosine[rows] = found.max(axis=1)
    return number, cosine


def in_order(cluster: Places, cosine: Doubles, keys: npt.NDArray[np.float64] | None, hard_first: bool) -> list[Places]:
    """For each cluster that has rows, its rows (given in uid order) far or near first, or by `keys`; ties by uid."""
    ranked = (cosine if hard_first else -cosine) if keys is None else keys
    order = np.lexsort((ranked, cluster))
    return np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if len(order) else []
