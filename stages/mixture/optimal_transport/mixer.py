"""The mixer `optimal_transport`: evidence to atoms, atoms to the optimum, the optimum to shares with references."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field, field_validator

from schemas.columns import COLUMNS, IMAGE_EMBEDDING
from schemas.errors import ContractError, CuveeError
from stages.atoms import Atoms, Doubles, quantise, unit_rows
from stages.mixer import Floats, Mixer, Mixture, MixtureEvidence
from stages.mixture.optimal_transport.bootstrap import intervals
from stages.mixture.optimal_transport.program import Masses, Optimum, Potentials, minimise
from stages.mixture.optimal_transport.shares import GRID, gone, learned, shares_of

UNLIMITED = 2**31 - 1
"""`max_repeats: null`: as often as `repeats`, an int32, can say."""
AT_LIMIT = 1e-8


class OptimalTransport(Mixer):
    """The mixture of sources closest to the target in embedding space, with repetition caps.

    The objective is the squared 2-Wasserstein distance between the mixture's and the target's atoms, on unit vectors,
    divided by the median cost between source and target atoms. Rows count by their rule weights.
    Learned: the ideal and the capped shares. Pinned shares are not adjusted to new rows; the objective always is that
    of the rows there are, so a pin that has aged shows.
    """

    version: ClassVar[int] = 2

    kind: Literal["optimal_transport"] = "optimal_transport"
    target: Literal["target"] = "target"
    column: str | tuple[str, ...] = IMAGE_EMBEDDING.name
    """Embedding column, or several: their vectors are joined, so that the costs are averaged."""
    atoms: int = Field(64, ge=1, le=4096)
    """k-means atoms of each source and of the target, at most; fewer where there are few rows."""
    max_repeats: int | None = Field(4, ge=1, le=UNLIMITED)
    """How often one row may be drawn at most; null lifts the cap."""
    bootstrap: int = Field(200, ge=20)
    """Replicates behind the intervals."""

    @field_validator("column")
    @classmethod
    def _vectors(cls, column: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (column,) if isinstance(column, str) else column
        if not names or len(set(names)) != len(names):
            raise ValueError(f"found {column!r}; name an embedding column, or several different ones")
        for known in (COLUMNS[name] for name in names if name in COLUMNS):
            if not (pa.types.is_list(known.type) or pa.types.is_large_list(known.type)):
                raise ValueError(f"column {known.name!r} holds {known.type}; optimal_transport needs embeddings")
        return column

    def columns(self) -> tuple[str, ...]:
        """The embedding columns."""
        return (self.column,) if isinstance(self.column, str) else self.column

    def needs_target(self) -> bool:
        """Always."""
        return True

    def repeats_allowed(self) -> int:
        """`max_repeats`."""
        return UNLIMITED if self.max_repeats is None else self.max_repeats

    def mix(self, evidence: MixtureEvidence) -> Mixture:
        """Weigh the sources that have surviving rows.

        Raises:
            CuveeError: no rows on one side, embeddings of different width, more samples than the cap allows, a source
                without a pinned weight, or pinned weights that leave nothing to the sources there are.
        """
        names = sorted(evidence.sources)
        natural, limits = _natural(evidence, names), self._limits(evidence, names)
        sources, target = self._quantised(evidence, names)
        potentials, median = _costs(list(sources.values()), target)
        masses = Masses(np.concatenate([atoms.weights for atoms in sources.values()]), target.weights)
        fit = evidence.fit
        if fit is None:
            best = _optima(potentials, masses, limits, natural)
            bounds = intervals(potentials, sources, target, natural, self.bootstrap, evidence.seed)
            fit = learned(names, *best, bounds)
        points = {name: shares_of(fit, name, names) for name in ("ideal", "capped")}
        points |= {"natural": natural, "uniform": np.full(len(names), 1 / len(names))}
        values = {name: potentials.distance(point, masses) for name, point in sorted(points.items())}
        alone = {name: potentials.distance(np.eye(len(names))[i], masses) for i, name in enumerate(names)}
        squared = {name: values[name] * median for name in ("ideal", "capped")}
        facts = {"alone": alone, "median_cost": median, "squared_distance": squared, "gap": fit.facts["gap"]}
        return Mixture(
            weights=dict(zip(names, points["ideal"].tolist(), strict=True)),
            capped=dict(zip(names, points["capped"].tolist(), strict=True)),
            intervals={name: tuple(fit.facts["intervals"][name]) for name in names},
            objective=values.pop("capped"),
            references=values,
            binding=tuple(f"max_repeats: {names[i]}" for i in _at_limit(points["capped"], limits)),
            evidence=self._facts({**sources, "target": target}) | facts,
            fit=fit,
            notes=gone(fit, names),
        )

    def _limits(self, evidence: MixtureEvidence, names: Sequence[str]) -> Doubles:
        rows = np.array([len(evidence.sources[name].uids) for name in names], np.float64)
        possible = self.repeats_allowed() * int(rows.sum())
        if evidence.samples > possible:
            raise CuveeError(
                f"{evidence.samples} samples are asked for, but {int(rows.sum())} surviving rows drawn at most "
                f"{self.max_repeats} times give {possible}; lower export.samples, raise max_repeats or loosen the rules"
            )
        limits: Doubles = np.minimum(1.0, self.repeats_allowed() * rows / evidence.samples)
        return limits

    def _quantised(self, evidence: MixtureEvidence, names: Sequence[str]) -> tuple[dict[str, Atoms], Atoms]:
        rows = unit_rows([evidence.target[column] for column in self.columns()], "the target")
        keys = [xxhash.xxh3_128_hexdigest(row.tobytes()) for row in rows]
        target = quantise(rows, np.ones(len(rows)), keys, self.atoms, evidence.seed)
        sources = {}
        for name in names:
            found = evidence.sources[name]
            rows = unit_rows([found.columns[column] for column in self.columns()], f"source {name!r}")
            _refuse_widths(rows, target, name)
            weights = np.asarray(found.weights, np.float64)
            sources[name] = quantise(rows, weights, found.uids, self.atoms, evidence.seed)
        return sources, target

    def _facts(self, sides: dict[str, Atoms]) -> dict[str, Any]:
        return {
            "columns": list(self.columns()),
            "atoms": {name: len(atoms.weights) for name, atoms in sides.items()},
            "quantisation_error": {name: atoms.error for name, atoms in sides.items()},
            "effective_rows": {name: atoms.effective_rows for name, atoms in sides.items()},
            "bootstrap": self.bootstrap,
        }


def _natural(evidence: MixtureEvidence, names: Sequence[str]) -> Doubles:
    if not names:
        raise CuveeError("no source has a surviving row to mix; loosen the rules")
    shares = np.array([evidence.natural.get(name, 0.0) for name in names])
    if not (shares > 0).all():
        raise ContractError(f"expected a natural share > 0 for each of {list(names)}, found {evidence.natural}")
    natural: Doubles = shares / shares.sum()
    return natural


def _refuse_widths(rows: Floats, target: Atoms, name: str) -> None:
    found, expected = rows.shape[1], target.points.shape[1]
    if found != expected:
        raise CuveeError(
            f"source {name!r} has embeddings of width {found}, the target of {expected}; score both with one model"
        )


def _optima(potentials: Potentials, masses: Masses, limits: Doubles, natural: Doubles) -> tuple[Optimum, Optimum]:
    """The optimum without limits and the one within them: the same where it fits."""
    ideal = minimise(potentials, masses, np.ones(len(limits)), natural)
    fits = bool((ideal.shares <= limits + AT_LIMIT).all())
    return ideal, ideal if fits else minimise(potentials, masses, limits, natural)


def _at_limit(shares: Doubles, limits: Doubles) -> list[int]:
    return [int(i) for i in np.flatnonzero((limits < 1) & (shares >= limits - 1 / GRID))]


def _costs(sources: Sequence[Atoms], target: Atoms) -> tuple[Potentials, float]:
    """Squared distances in units of their median, and that median."""
    points = np.concatenate([atoms.points for atoms in sources])
    costs = np.stack([np.square(points - atom).sum(axis=1) for atom in target.points], axis=1)
    median = float(np.median(costs)) or 1.0
    return Potentials(costs / median, tuple(len(atoms.weights) for atoms in sources), [], []), median
