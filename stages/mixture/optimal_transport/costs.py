"""What moving an atom of a source to an atom of the target costs, in units where the median cost is 1.

    embedding   c_ab = |x_a - y_b|^2
    clusters    c_ab = |x_a - y_b|^2 + weight W2^2(group of a in its source, group of b in the target)

The second is OTDD's (Alvarez-Melis and Fusi, arXiv:2002.02923): groups that lie apart as distributions are far from
each other wherever their rows lie. Groups are labels where the recipe names a column of them (OTDD's case), else
k-means clusters of the atoms of all sources and the target together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.atoms import Atoms, Doubles, partitioned, quantise
from stages.mixer import Floats
from stages.mixture.optimal_transport.smoothed import Costs, parts
from stages.transport.exact import solve_where_held

Integers = npt.NDArray[np.int64]
Labels = npt.NDArray[np.generic]

MEDIAN_OF = 2**22
"""Entries whose median stands for all: an even stride of rows."""
WIDE = 2**24
"""Matrices with more entries are in single precision, made by matrix products."""
MOST_LABELS = 64


@dataclass(frozen=True)
class Grouped:
    """Atoms, and the group that each belongs to."""

    atoms: Atoms
    groups: Integers
    """(k,) numbers >= 0."""


def scaled(costs: Costs) -> tuple[Costs, float]:
    """Costs in units of their median, and that median; where the median is 0, the unit is 1."""
    stride = max(1, costs.size // MEDIAN_OF)
    median = float(np.median(costs[::stride])) or 1.0
    costs /= costs.dtype.type(median)
    return costs, median


def squared(points: Doubles, target: Doubles) -> Costs:
    """(m, b) squared distances between (m, d) and (b, d) points."""
    if len(points) * len(target) <= WIDE:
        return np.stack([np.square(points - atom).sum(axis=1) for atom in target], axis=1)
    middle = target.mean(axis=0)
    left, right = (points - middle).astype(np.float32), (target - middle).astype(np.float32)
    found = np.empty((len(left), len(right)), np.float32)
    lengths = np.square(right).sum(axis=1)
    for part in parts(found):
        np.matmul(left[part], right.T, out=found[part])
        found[part] *= -2
        found[part] += np.square(left[part]).sum(axis=1)[:, None] + lengths
        np.maximum(found[part], 0, out=found[part])
    return found


def grouped_costs(sources: Sequence[Grouped], target: Grouped, weight: float) -> Costs:
    """(m, b) squared distances plus `weight` times those between groups, by exact transports of their atoms."""
    points = np.concatenate([source.atoms.points for source in sources])
    costs = squared(points, target.atoms.points)
    starts = np.cumsum([0, *(len(source.groups) for source in sources)])
    for source, start in zip(sources, starts, strict=False):
        for group in np.unique(source.groups):
            rows = np.flatnonzero(source.groups == group)
            for other in np.unique(target.groups):
                columns = np.flatnonzero(target.groups == other)
                block = np.ix_(start + rows, columns)
                near = costs[block].astype(np.float64)
                apart = solve_where_held(source.atoms.weights[rows], target.atoms.weights[columns], near).value
                costs[block] = near + weight * apart
    return costs


def clustered(sides: Sequence[Atoms], clusters: int, seed: int) -> list[Grouped]:
    """The atoms of each side with their cluster among `clusters`, found on all atoms together by their mass."""
    points = np.concatenate([atoms.points for atoms in sides])
    weights = np.concatenate([atoms.weights for atoms in sides])
    keys = [f"{side}/{atom}" for side, atoms in enumerate(sides) for atom in range(len(atoms.weights))]
    centres = quantise(points.astype(np.float32), weights, keys, clusters, seed).points
    groups = squared(points, centres).argmin(axis=1).astype(np.int64)
    ends = np.cumsum([len(atoms.weights) for atoms in sides])[:-1]
    return [Grouped(atoms, part) for atoms, part in zip(sides, np.split(groups, ends), strict=True)]


def labelled(
    rows: Floats, weights: Doubles, keys: Sequence[str], labels: Labels, known: Sequence[object], atoms: int, seed: int
) -> Grouped:
    """Atoms of each label's rows, in proportion to their weight and at least one; groups are places in `known`.

    Raises:
        CuveeError: more labels than a transport between labels is meant for.
    """
    if len(known) > MOST_LABELS:
        raise CuveeError(f"found {len(known)} labels, expected at most {MOST_LABELS}; name a coarser column as `label`")
    total, found, groups = float(weights.sum()), [], []
    for number, label in enumerate(known):
        chosen = np.flatnonzero(labels == label)
        if not len(chosen):
            continue
        share = float(weights[chosen].sum()) / total
        part = partitioned(
            rows[chosen], weights[chosen], [keys[int(i)] for i in chosen], max(1, round(atoms * share)), seed
        )
        found.append(replace(part, weights=part.weights * share, error=part.error * share))
        groups.append(np.full(len(part.weights), number))
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    points, masses = np.concatenate([p.points for p in found]), np.concatenate([p.weights for p in found])
    return Grouped(Atoms(points, masses, effective, sum(p.error for p in found)), np.concatenate(groups))
