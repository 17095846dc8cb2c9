"""Spherical k-means on a sample, then every row to its nearest centroid."""

import os
from collections.abc import Sequence
from functools import cache
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
NO_INDEX_ON_GPU = "CUVEE_NO_INDEX_ON_GPU"
"""Set in the environment of workers: many share a GPU that none of them was given."""


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


def probed_centroids(embeddings: Vectors, centroids: Vectors, probe: int, index: Any = None) -> tuple[Places, Doubles]:
    """(n, p) numbers of the p = min(probe, k) centroids with the largest cosines (first of equals), and those cosines.

    On a GPU a faiss index names a few candidates by float32; they are ranked by exact cosines, and a row of which that
    cannot be known to be right, within the index's rounding error, is compared with all centroids. So the result is the
    exact one on any device. Without a GPU exact cosines take no longer than an index.

    Args:
        embeddings: (n, d).
        centroids: (k, d).
        probe: how many are wanted.
        index: of `flat_index`; default: one on the GPU, in a process that may use one.
    """
    probe = min(probe, len(centroids))
    number = np.zeros((len(embeddings), probe), np.int64)
    cosine = np.zeros((len(embeddings), probe))
    every = np.arange(len(centroids))
    index = index if index is not None else _gpu_index(centroids)
    for rows in blocks(len(embeddings), BLOCK_ROWS):
        if index is None:
            number[rows], cosine[rows] = _best(cosines(embeddings[rows], centroids), every, probe)
            continue
        number[rows], cosine[rows], sure = _indexed(embeddings[rows], centroids, probe, index)
        if not sure.all():
            exact = cosines(embeddings[rows][~sure], centroids)
            number[rows][~sure], cosine[rows][~sure] = _best(exact, every, probe)
    return number, cosine


def _indexed(
    rows: Vectors, centroids: Vectors, probe: int, index: Any
) -> tuple[Places, Doubles, npt.NDArray[np.bool_]]:
    """As `probed_centroids` by an index's candidates, and (n,) whether no other centroid can be among them.

    Where the index fails nothing is sure.
    """
    asked = min(probe + SPARE, len(centroids))
    try:
        scores, named = index.search(unit_singles(rows), asked)
    except RuntimeError:  # no room on the GPU beside what else runs there
        return np.zeros((len(rows), probe), np.int64), np.zeros((len(rows), probe)), np.zeros(len(rows), np.bool_)
    named = np.sort(named, axis=1)
    number, cosine = _best(cosines_with(rows, centroids, named), named, probe)
    sure = cosine[:, -1] > scores[:, -1] + rounding_error(centroids.shape[1])
    return number, cosine, sure | (asked == len(centroids))


def unit_singles(embeddings: Vectors) -> Singles:
    """The rows in float32, divided by their norms; rows of zeros stay."""
    lengths = np.maximum(norms(embeddings), np.finfo(np.float16).smallest_subnormal)[:, None]
    return np.ascontiguousarray(embeddings / lengths, np.float32)


def rounding_error(width: int) -> float:
    """How far a float32 dot product of two unit vectors is from the exact one at most: (d + 3) 2^-24, with a margin."""
    return (width + 8) * 2.0**-23


def flat_index(centroids: Vectors) -> Any:
    """A faiss index of unit vectors by dot product, on the CPU."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(unit_singles(centroids))
    return index


def _gpu_index(centroids: Vectors) -> Any:
    """The same on the first GPU; None where faiss sees none, it has no room, or this process was not given it."""
    import faiss

    if os.environ.get(NO_INDEX_ON_GPU) or faiss.get_num_gpus() == 0:
        return None
    try:
        return faiss.index_cpu_to_gpu(_gpu_resources(), 0, flat_index(centroids))
    except RuntimeError:
        return None


@cache
def _gpu_resources() -> Any:
    """Room for faiss on the GPU, 1.5 GB of it: once per process."""
    import faiss

    return faiss.StandardGpuResources()


def _best(exact: Doubles, named: Places, probe: int) -> tuple[Places, Doubles]:
    """The first `probe` by (cosine, highest first, then number); `named` ascends in each row."""
    order = np.argsort(-exact, axis=1, kind="stable")[:, :probe] if probe > 1 else exact.argmax(axis=1)[:, None]
    named = np.broadcast_to(named, exact.shape)
    return np.take_along_axis(named, order, axis=1), np.take_along_axis(exact, order, axis=1)
