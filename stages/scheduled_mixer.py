"""A mixer whose evidence is the training of a proxy connector under a schedule, repeated over seeds.

The ideal shares are the mean of what the schedule recommends; their intervals are Student's over seeds. The objective
is the held-out loss of connectors trained on fixed shares: the returned ones, the ideal, uniform and natural ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, field_validator

from schemas.errors import ContractError, CuveeError
from stages.fit import Fit
from stages.mixer import Mixer, Mixture, MixtureEvidence
from stages.mixture.limits import Bounds, Limits
from stages.schedule import Doubles, Proxy, Rehearsal, Rhythm, Schedule, on_simplex

HALVINGS = 200
"""Of the interval in which the scale of capped shares is found: more than a double has bits."""


class ScheduledMixer(Rhythm, Limits, Mixer):
    """What the mixers that rehearse a schedule share. They minimise nothing that a prior could be added to."""

    seeds: int = Field(3, ge=2)
    """Proxy connectors behind the intervals, and behind each value of the objective."""
    proxy_steps: int | None = Field(None, ge=1)
    """Optimizer steps of a proxy; default: the budget under `train`."""

    @field_validator("prior_strength")
    @classmethod
    def _no_prior(cls, strength: float) -> float:
        if strength:
            raise ValueError("a mixer that rehearses a schedule knows no prior; leave it out, or limit the shares")
        return strength

    def schedule(self) -> Schedule:
        """What the proxy is trained by."""
        raise ContractError(f"{type(self).__name__} does not implement schedule()")

    def shared(self, schedule: type[BaseModel]) -> dict[str, Any]:
        """This mixer's settings that the schedule has, too."""
        return {name: value for name, value in self.model_dump().items() if name in schedule.model_fields}

    def columns(self) -> tuple[str, ...]:
        """None: connectors see images and captions."""
        return ()

    def needs_proxy(self) -> bool:
        """Always."""
        return True

    def mix(self, evidence: MixtureEvidence) -> Mixture:
        """Rehearse, then weigh the sources that have surviving rows.

        Raises:
            CuveeError: no source, limits that collide, or a source without a pinned weight.
        """
        names = sorted(evidence.sources)
        if not names or evidence.proxy is None:
            raise CuveeError("no source has a surviving row to mix; loosen the rules")
        rows = [len(evidence.sources[name].uids) for name in names]
        bounds = self.bounds(names, rows, evidence.samples, evidence.natural)
        given = np.array([evidence.natural.get(name, 0.0) for name in names])
        runs: list[Rehearsal] = []
        if (fit := evidence.fit) is None:
            runs = [self._train(evidence.proxy, self.schedule(), seed) for seed in range(self.seeds)]
            fit = learned(names, np.array([run.weights for run in runs]))
        ideal, notes = pinned_shares(fit, names)
        points = {"ideal": ideal, "capped": within(ideal, bounds)}
        points |= {"natural": given / given.sum(), "uniform": np.full(len(names), 1 / len(names))}
        held = self._held_out(evidence.proxy, points)
        values = {name: float(np.mean([run.loss for run in trained])) for name, trained in held.items()}
        return Mixture(
            weights=dict(zip(names, points["ideal"].tolist(), strict=True)),
            capped=dict(zip(names, points["capped"].tolist(), strict=True)),
            intervals={name: tuple(fit.facts["intervals"][name]) for name in names},
            objective=values.pop("capped"),
            references=values,
            binding=bounds.binding(points["capped"]),
            evidence=_facts(runs, held),
            fit=fit,
            notes=notes,
        )

    def _train(self, proxy: Proxy, weights: "Doubles | Schedule", seed: int) -> Rehearsal:
        return proxy.train(weights, seed, self.proxy_steps)

    def _held_out(self, proxy: Proxy, points: Mapping[str, Doubles]) -> dict[str, list[Rehearsal]]:
        """Per mixture a connector a seed; equal mixtures are trained once."""
        found: dict[str, list[Rehearsal]] = {}
        for name, point in sorted(points.items()):
            twin = next((other for other in found if np.array_equal(points[other], point)), None)
            found[name] = found[twin] if twin else [self._train(proxy, point, seed) for seed in range(self.seeds)]
        return found


def learned(names: Sequence[str], weights: Doubles) -> Fit:
    """Mean shares and their 95 % intervals from recommendations (n, S) of n seeds."""
    from scipy.stats import t

    mean = on_simplex(weights.mean(axis=0) / weights.mean(axis=0).sum())
    half = float(t.ppf(0.975, len(weights) - 1)) * weights.std(axis=0, ddof=1) / math.sqrt(len(weights))
    low, high = np.maximum(mean - half, 0.0).tolist(), np.minimum(mean + half, 1.0).tolist()
    intervals = {name: [low[i], high[i]] for i, name in enumerate(names)}
    return Fit(facts={"shares": dict(zip(names, mean.tolist(), strict=True)), "intervals": intervals})


def pinned_shares(fit: Fit, names: Sequence[str]) -> tuple[Doubles, tuple[str, ...]]:
    """(S,) the fit's shares of the sources there are, and a note on those that are gone.

    Raises:
        CuveeError: a source without a share, or no share left.
    """
    shares: Mapping[str, float] = fit.facts["shares"]
    if missing := sorted(set(names) - set(shares)):
        raise CuveeError(
            f"source {missing[0]!r} has no weight in the pinned run; run once without `fits`, and pin that"
        )
    found = np.array([shares[name] for name in names])
    if not found.sum() > 0:
        raise CuveeError(f"the pinned weights leave nothing to {', '.join(names)}; run once without `fits`")
    gone = [name for name in sorted(set(shares) - set(names)) if shares[name] > 0]
    note = f"{', '.join(gone)} had a weight in the pinned run and no rows now: the others share it in proportion"
    return found / found.sum(), (note,) if gone else ()


def within(shares: Doubles, bounds: Bounds) -> Doubles:
    """(S,) the shares within bounds that are nearest in KL(p || shares): all scaled by one number, then cut.

    Shares of 0 count as 1e-12, so that what the others may not take goes to them.
    """
    if bounds.hold(shares):
        return shares
    floor = np.maximum(shares, 1e-12)
    low, high = 0.0, 1.0 / float(floor.min())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = float(np.clip(middle * floor, bounds.lower, bounds.upper).sum()) < 1
        low, high = (middle, high) if below else (low, middle)
    found = np.clip(high * floor, bounds.lower, bounds.upper)
    return np.asarray(found / found.sum(), np.float64)


def _facts(runs: Sequence[Rehearsal], held: Mapping[str, Sequence[Rehearsal]]) -> dict[str, Any]:
    paths = [{"seed": i, "weights": run.weights.tolist(), "updates": list(run.updates)} for i, run in enumerate(runs)]
    losses = {name: [run.losses for run in trained] for name, trained in held.items()}
    return {"schedules": paths, "held_out_losses": losses}
