"""From evidence to the two sides of the transport: weighted atoms and what moving between them costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from schemas.errors import CuveeError
from stages.atoms import Atoms, partitioned, unit_rows
from stages.mixer import Floats, MixtureEvidence
from stages.mixture.optimal_transport.costs import (
    Grouped,
    Labels,
    clustered,
    grouped_costs,
    labelled,
    scaled,
    squared,
)
from stages.mixture.optimal_transport.program import Masses
from stages.mixture.optimal_transport.smoothed import Costs


@dataclass(frozen=True)
class Quantising:
    """The settings that decide about atoms and costs."""

    columns: tuple[str, ...]
    atoms: int
    cost: str
    label: str | None
    clusters: int
    group_weight: float


@dataclass(frozen=True)
class Sides:
    """Atoms of each source and of the target, and the costs between them."""

    sources: dict[str, Atoms]
    """By name, sorted."""
    target: Atoms
    costs: Costs
    """(m, b) in units of their median."""
    median: float

    @property
    def sizes(self) -> tuple[int, ...]:
        """Atoms per source."""
        return tuple(len(atoms.weights) for atoms in self.sources.values())

    @property
    def masses(self) -> Masses:
        """What lies on the atoms."""
        return Masses(np.concatenate([atoms.weights for atoms in self.sources.values()]), self.target.weights)

    def facts(self) -> dict[str, Any]:
        """How well atoms stand for rows."""
        sides = {**self.sources, "target": self.target}
        return {
            "atoms": {name: len(atoms.weights) for name, atoms in sides.items()},
            "quantisation_error": {name: atoms.error for name, atoms in sides.items()},
            "effective_rows": {name: atoms.effective_rows for name, atoms in sides.items()},
            "median_cost": self.median,
        }


def sides_of(evidence: MixtureEvidence, names: Sequence[str], settings: Quantising) -> Sides:
    """Quantise every side and set the costs.

    Raises:
        CuveeError: a side without an embedding, widths that differ, too many labels.
    """
    _refuse_missing(evidence, names, settings)
    found = [_quantised(evidence, name, settings) for name in (*names, None)]
    if settings.cost == "clusters" and settings.label is None:
        found = clustered([side.atoms for side in found], settings.clusters, evidence.seed)
    *sources, target = found
    if settings.cost == "clusters":
        costs = grouped_costs(sources, target, settings.group_weight)
    else:
        costs = squared(np.concatenate([side.atoms.points for side in sources]), target.atoms.points)
    costs, median = scaled(costs)
    return Sides(dict(zip(names, (side.atoms for side in sources), strict=True)), target.atoms, costs, median)


def _quantised(evidence: MixtureEvidence, name: str | None, settings: Quantising) -> Grouped:
    """A source's atoms, or the target's for None."""
    columns = evidence.target if name is None else evidence.sources[name].columns
    rows = unit_rows([columns[column] for column in settings.columns], _called(name))
    if name is None:
        weights, keys = np.ones(len(rows)), [xxhash.xxh3_128_hexdigest(row.tobytes()) for row in rows]
    else:
        weights, keys = np.asarray(evidence.sources[name].weights, np.float64), evidence.sources[name].uids
    if settings.label is None:
        atoms = partitioned(rows, weights, keys, settings.atoms, evidence.seed)
        return Grouped(atoms, np.zeros(len(atoms.weights), np.int64))
    labels = _labels(columns[settings.label])
    return labelled(rows, weights, keys, labels, _known(evidence, settings.label), settings.atoms, evidence.seed)


def _labels(values: Floats | Labels) -> Labels:
    return np.asarray(values).astype(str)


def _known(evidence: MixtureEvidence, column: str) -> list[str]:
    sides = [evidence.target, *(found.columns for found in evidence.sources.values())]
    return sorted(set().union(*(set(_labels(side[column]).tolist()) for side in sides)))


def _called(name: str | None) -> str:
    return "the target" if name is None else f"source {name!r}"


def _refuse_missing(evidence: MixtureEvidence, names: Sequence[str], settings: Quantising) -> None:
    wanted = (*settings.columns, *([settings.label] if settings.label else []))
    widths: dict[str, int] = {}
    for name in (None, *names):
        columns = evidence.target if name is None else evidence.sources[name].columns
        if lacking := [column for column in wanted if column not in columns or not len(columns[column])]:
            raise CuveeError(
                f"{_called(name)} has no row with an embedding in {lacking[0]!r}; a mixture needs at least one: score "
                "it with the stage that writes that column, or leave the source out of the pool"
            )
        width = sum(columns[column].shape[1] for column in settings.columns if columns[column].ndim == 2)
        if width != widths.setdefault("target", width):
            raise CuveeError(
                f"{_called(name)} has embeddings of width {width}, the target of {widths['target']}; score both with "
                "one model"
            )
