"""The mixer `optimal_transport`: evidence to atoms, atoms to the optimum, the optimum to shares with references."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from schemas.columns import COLUMNS, IMAGE_EMBEDDING
from schemas.errors import ContractError, CuveeError, RecipeError
from stages.atoms import Doubles
from stages.fit import Fit
from stages.mixer import Mixer, Mixture, MixtureEvidence
from stages.mixture.fitted_shares import gone, shares_of
from stages.mixture.limits import Bounds, Limits
from stages.mixture.optimal_transport.bootstrap import intervals
from stages.mixture.optimal_transport.box import Box, divergence
from stages.mixture.optimal_transport.objective import Divergence, Gradient, Objective, Program
from stages.mixture.optimal_transport.problem import Problem
from stages.mixture.optimal_transport.program import Optimum, Potentials
from stages.mixture.optimal_transport.shares import learned, marginal_of
from stages.mixture.optimal_transport.sides import Quantising, Sides, sides_of
from stages.mixture.optimal_transport.sinkhorn import Debiased
from stages.mixture.source_ranking import mean_cosines, rank_sources

LARGE = 2**20
"""Costs beyond which `solver: auto` takes exponentiated gradient: cutting planes would need minutes."""


class OptimalTransport(Limits, Mixer):
    """The mixture of sources closest to the target in embedding space, within limits.

    The objective is the squared 2-Wasserstein distance between the mixture's and the target's atoms, on unit vectors,
    divided by the median cost between source and target atoms, plus `prior_strength` KL(shares || prior). Rows count by
    their rule weights. Learned: the ideal and the capped shares, their intervals and marginal values. Pinned shares are
    not adjusted to new rows; the objective always is that of the rows there are, so a pin that has aged shows.

    Objectives compare between mixtures of one run, and between `solver`s, limits and seeds: the unit is the same. They
    do not compare between different `atoms` (fewer atoms hide spread), `column`, `cost`, `label_weight`, `divergence`
    or `epsilon`, nor between pools, whose median cost differs; `squared_distance` in the evidence compares between
    pools of one model.
    """

    version: ClassVar[int] = 4

    kind: Literal["optimal_transport"] = "optimal_transport"
    target: Literal["target"] = "target"
    column: str | tuple[str, ...] = IMAGE_EMBEDDING.name
    """Embedding column, or several: their vectors are joined, so that the costs are averaged."""
    atoms: int = Field(64, ge=1, le=4096)
    """k-means atoms of each source and of the target, at most; fewer where there are few rows."""
    solver: Literal["auto", "linear_program", "exponentiated_gradient"] = "auto"
    """`linear_program`: exact; `exponentiated_gradient`: certified to 2e-5 of the value, for many atoms and with a
    prior; `auto`: the program, unless there is a prior or more than a million costs. Not read with Sinkhorn."""
    divergence: Literal["exact", "sinkhorn"] = "exact"
    """The transport distance itself, or the debiased Sinkhorn divergence: smooth in the shares."""
    epsilon: float = Field(0.05, ge=0.01, le=10)
    """Of `divergence: sinkhorn`, relative to the median cost."""
    cost: Literal["embedding", "clusters"] = "embedding"
    """Squared distance of embeddings, or that plus the distance between the two atoms' groups as distributions."""
    label: str | None = None
    """With `cost: clusters`, the column that groups rows; without one, k-means clusters of the atoms do."""
    label_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the groups' distance beside the embeddings'."""
    clusters: int = Field(8, ge=1, le=64)
    """Of `cost: clusters` without `label`."""
    bootstrap: int = Field(200, ge=20)
    """Replicates behind the intervals."""
    ranking: bool = True
    """Leave-one-out and pair tables in the evidence: a small problem for each source with a share and for each pair."""
    pairs: int = Field(8, ge=0, le=64)
    """Sources in the pair table at most, the nearest ones; 0 for none."""

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

    @model_validator(mode="after")
    def _together(self) -> "OptimalTransport":
        if self.solver == "linear_program" and self.divergence == "sinkhorn":
            raise ValueError("the Sinkhorn divergence is no linear program; leave `solver` at auto")
        if self.solver == "linear_program" and self.prior_strength:
            raise ValueError("with a prior_strength it is no linear program; leave `solver` at auto")
        if self.label is not None and self.cost != "clusters":
            raise ValueError(f"label: {self.label} is read by cost: clusters only")
        return self

    def columns(self) -> tuple[str, ...]:
        """The embedding columns, and the labels."""
        return (*self._embeddings(), *([self.label] if self.label else []))

    def needs_target(self) -> bool:
        """Always."""
        return True

    def check(self, sources: Sequence[str]) -> None:
        """Refuse limits and priors that name a source that the pool does not have."""
        try:
            self.refuse_unknown(sources)
        except CuveeError as error:
            raise RecipeError(f"mix: {error}") from error

    def mix(self, evidence: MixtureEvidence) -> Mixture:
        """Weigh the sources that have surviving rows.

        Raises:
            CuveeError: no rows on one side, embeddings of different width, limits that collide, more samples than the
                cap allows, a source without a pinned weight, or pinned weights that leave nothing to the sources there.
        """
        names = sorted(evidence.sources)
        natural, bounds = _natural(evidence, names), self._bounds(evidence, names)
        sides = sides_of(evidence, names, self._quantising())
        objective = self._objective(sides, natural, self.prior_shares(names, evidence.natural))
        fit = evidence.fit
        if fit is None:
            fit = self._learned(objective, sides, bounds, evidence.seed)
        points = {name: shares_of(fit, name, names) for name in ("ideal", "capped")}
        points |= {"natural": natural, "uniform": np.full(len(names), 1 / len(names))}
        values = {name: objective.value(point) for name, point in sorted(points.items())}
        return Mixture(
            weights=dict(zip(names, points["ideal"].tolist(), strict=True)),
            capped=dict(zip(names, points["capped"].tolist(), strict=True)),
            intervals={name: tuple(fit.facts["intervals"][name]) for name in names},
            objective=values["capped"],
            references={name: value for name, value in values.items() if name != "capped"},
            binding=bounds.binding(points["capped"]),
            evidence=self._facts(sides, points, values, fit) | {"alone": _alone(objective, names)},
            fit=fit,
            notes=gone(fit, names),
        )

    def _embeddings(self) -> tuple[str, ...]:
        return (self.column,) if isinstance(self.column, str) else self.column

    def _quantising(self) -> Quantising:
        return Quantising(self._embeddings(), self.atoms, self.cost, self.label, self.clusters, self.label_weight)

    def _bounds(self, evidence: MixtureEvidence, names: Sequence[str]) -> Bounds:
        rows = [len(evidence.sources[name].uids) for name in names]
        return self.bounds(names, rows, evidence.samples, known=evidence.natural)

    def _objective(self, sides: Sides, natural: Doubles, prior: Doubles) -> Objective:
        masses, strength = sides.masses, self.prior_strength
        plain = self.divergence == "exact" and not strength
        small = self.solver == "auto" and sides.costs.size <= LARGE
        if plain and (small or self.solver == "linear_program"):
            return Program(Potentials(sides.costs, sides.sizes, [], []), masses, natural)
        start = prior if strength else natural
        free = Box.free(len(natural))
        problem = Problem(sides.costs, sides.sizes, masses.sources, masses.target, free, start, strength)
        if self.divergence == "exact":
            return Gradient(problem)
        atoms = np.concatenate([side.points for side in sides.sources.values()])
        within, target = (_within(points) / sides.median for points in (atoms, sides.target.points))
        return Divergence(Debiased(problem, within, target, self.epsilon))

    def _learned(self, objective: Objective, sides: Sides, bounds: Bounds, seed: int) -> Fit:
        """The optimum without limits and the one within them: the same where it fits."""
        count = len(sides.sources)
        ideal = objective.best(Box.free(count))
        capped = ideal if bounds.hold(ideal.shares) else objective.best(Box(bounds.lower, bounds.upper))
        spans = intervals(objective, sides.sources, sides.target, self.bootstrap, seed)
        more = {"ranking": self._ranking(objective, sides, ideal)} if self.ranking else {}
        return learned([*sides.sources], ideal, capped, spans, more)

    def _ranking(self, objective: Objective, sides: Sides, ideal: Optimum) -> dict[str, Any]:
        names = [*sides.sources]
        means = {name: atoms.weights @ atoms.points for name, atoms in sides.sources.items()}
        cosine = mean_cosines(means, sides.target.weights @ sides.target.points)

        def best(chosen: list[int]) -> float:
            return objective.best(Box.only(len(names), chosen)).value

        return rank_sources(names, _alone(objective, names), cosine, best, ideal.shares, self.pairs).facts()

    def _facts(self, sides: Sides, points: dict[str, Doubles], values: dict[str, float], fit: Fit) -> dict[str, Any]:
        names = [*sides.sources]
        prior = self.prior_shares(names, dict(zip(names, points["natural"].tolist(), strict=True)))
        distance = {name: values[name] - self.prior_strength * divergence(points[name], prior) for name in values}
        return sides.facts() | {
            "columns": list(self._embeddings()),
            "bootstrap": self.bootstrap,
            "gap": fit.facts["gap"],
            "distance": distance,
            "squared_distance": {name: distance[name] * sides.median for name in ("ideal", "capped")},
            "marginal": marginal_of(fit, names, points["capped"]),
            "ranking": fit.facts.get("ranking"),
        }


def _within(points: Doubles) -> Doubles:
    """(n, n) squared distances."""
    lengths = np.square(points).sum(axis=1)
    found: Doubles = np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0.0)
    return found


def _alone(objective: Objective, names: Sequence[str]) -> dict[str, float]:
    return {name: objective.value(point) for name, point in zip(names, np.eye(len(names)), strict=True)}


def _natural(evidence: MixtureEvidence, names: Sequence[str]) -> Doubles:
    if not names:
        raise CuveeError("no source has a surviving row to mix; loosen the rules")
    shares = np.array([evidence.natural.get(name, 0.0) for name in names])
    if not (shares > 0).all():
        raise ContractError(f"expected a natural share > 0 for each of {list(names)}, found {evidence.natural}")
    natural: Doubles = shares / shares.sum()
    return natural
