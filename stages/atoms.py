"""Rows of a source as a few weighted atoms: k-means, then the exact weighted mean of what each atom stands for.

Means, not medoids: the distance between two finite samples of one distribution is far from zero in many dimensions
and smaller for a narrow source near the target's centre, so raw rows would favour narrow sources; an atom averages
that noise away. For the same reason an atom stands for at least `ROWS_PER_ATOM` rows, where there are so many.

Where few rows make few atoms, which rows a partition puts together is chance, and what is computed from the atoms
hangs on it. So several partitions of the same rows, each with an equal part of the weight, then stand for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError, CuveeError
from stages.mixer import Floats
from stages.noise import uniform_noise

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ROWS_PER_ATOM = 8
PARTITIONS = 4
"""Of the same rows, at most."""
TRAINING_ROWS_PER_ATOM = 256
ITERATIONS = 25
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Atoms:
    """A distribution on a few points."""

    points: Doubles
    """(k, d) weighted means of the rows each atom stands for."""
    weights: Doubles
    """(k,) shares of the rows' weight, > 0, summing to 1."""
    effective_rows: float
    """Kish's effective sample size (sum w)^2 / sum w^2; the number of rows when all weigh the same."""
    error: float
    """Weighted mean squared distance of a row to its atom; its root bounds the change of the 2-Wasserstein distance."""


def unit_rows(columns: Sequence[Floats], owner: str) -> Floats:
    """(n, sum of widths) float32 rows of norm 1: each column's rows scaled to norm 1, joined, and divided by sqrt(m).

    Raises:
        CuveeError: there are no rows.
        ContractError: a value is not finite, a column holds no vectors, or a row is all zeros.
    """
    parts = []
    for values in columns:
        if not len(values):
            raise CuveeError(f"{owner} has no row with an embedding; a mixture needs at least one")
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ContractError(f"{owner}: expected finite vectors (n, d), found shape {values.shape}")
        norms = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        if not norms.all():
            raise ContractError(f"{owner}: row {int(np.argmin(norms))} is all zeros; an embedding has a direction")
        parts.append(values / norms / np.sqrt(len(columns)))
    joined: Floats = np.concatenate(parts, axis=1).astype(np.float32)
    return joined


def partitioned(rows: Floats, weights: Doubles, keys: Sequence[str], atoms: int, seed: int) -> Atoms:
    """`quantise` by as many as `PARTITIONS` seeds, as long as all their atoms together are at most `atoms`.

    Rows that fill the atoms with one partition, at least half of them, get just one.
    """
    parts = [quantise(rows, weights, keys, atoms, seed)]
    count = min(PARTITIONS, atoms // _most(len(rows), atoms))
    parts += [quantise(rows, weights, keys, atoms, seed + number) for number in range(1, count)]
    return Atoms(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.weights for part in parts]) / count,
        parts[0].effective_rows,
        sum(part.error for part in parts) / count,
    )


def quantise(rows: Floats, weights: Doubles, keys: Sequence[str], atoms: int, seed: int) -> Atoms:
    """At most `atoms` atoms for rows (n, d) with weights (n,) > 0 and one key each for the noise.

    k-means (faiss, one thread) is trained on the `TRAINING_ROWS_PER_ATOM` x k rows with the smallest noise; all rows
    are then assigned. Atoms nobody is assigned to are left out.
    """
    k = _most(len(rows), atoms)
    order = np.argsort(uniform_noise(keys, seed, "optimal_transport atoms"), kind="stable")
    nearest = _assigned(rows, rows[np.sort(order[: k * TRAINING_ROWS_PER_ATOM])], k, seed)
    mass = np.bincount(nearest, weights, k).astype(np.float64)
    used = np.flatnonzero(mass)
    points = _means(rows, weights, nearest, mass)
    error = sum(
        float((weights[part] * np.square(rows[part] - points[nearest[part]]).sum(axis=1)).sum())
        for part in _blocks(len(rows))
    )
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    return Atoms(points[used], mass[used] / weights.sum(), effective, error / float(weights.sum()))


def _most(rows: int, atoms: int) -> int:
    return max(1, min(atoms, rows // ROWS_PER_ATOM))


def _means(rows: Floats, weights: Doubles, nearest: Indices, mass: Doubles) -> Doubles:
    sums = np.zeros((len(mass), rows.shape[1]))
    for part in _blocks(len(rows)):
        np.add.at(sums, nearest[part], rows[part] * weights[part, None])
    means: Doubles = sums / np.where(mass > 0, mass, 1.0)[:, None]
    return means


def _blocks(rows: int) -> list[slice]:
    """Double precision for a block of rows at a time, not for all of them."""
    return [slice(start, start + BLOCK_ROWS) for start in range(0, rows, BLOCK_ROWS)]


def _assigned(rows: Floats, training: Floats, k: int, seed: int) -> Indices:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums in another order give other bits
    try:
        kmeans = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=ITERATIONS,
            seed=seed % 2**31,
            min_points_per_centroid=1,
            max_points_per_centroid=TRAINING_ROWS_PER_ATOM,
        )
        kmeans.train(np.ascontiguousarray(training, np.float32))
        _, nearest = kmeans.index.search(np.ascontiguousarray(rows, np.float32), 1)
    finally:
        faiss.omp_set_num_threads(threads)
    assigned: Indices = nearest[:, 0]
    return assigned
