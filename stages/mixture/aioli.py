"""Aioli: learn on the way how much each source lowers each loss, then follow it (Chen et al., arXiv:2411.05735).

    L_r(t + 1) = L_r(t) - sum_i A_ri p_i          the linear mixing law
    p_i <- p_i exp(eta * sum_r A_ri), normalised

A is learned in probes that are part of the training: `rounds` times, in an order of its own, each source gets the
share `one_hot` of `steps` steps and the others the rest evenly; D_rj is the mean fall of loss r in the probes of source
j, and A W = D for the mixtures W of the probes. With `normalised`, A is shifted to be >= 0 and divided by its sum, so
that eta has one scale at every stage of training. Rows are the targets, else the sources; losses are always of the same
samples.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from schemas.errors import ContractError, CuveeError
from stages.noise import uniform_noise
from stages.schedule import Course, Doubles, Rhythm, Schedule, Signals, State, Wants, exponentiated, weights_of
from stages.scheduled_mixer import ScheduledMixer


def probe_mixtures(sources: int, one_hot: float) -> Doubles:
    """(S, S) row j: the share `one_hot` for source j, the rest evenly for the others."""
    if sources == 1:
        return np.ones((1, 1))
    rest = (1 - one_hot) / (sources - 1)
    return np.full((sources, sources), rest) + (one_hot - rest) * np.eye(sources)


def mixing_law(falls: Doubles, mixtures: Doubles, normalised: bool) -> Doubles:
    """(R, S) the matrix A of the linear mixing law.

    Args:
        falls: (R, S) mean fall of loss r in the probes of source j.
        mixtures: (S, S) row j, the mixture of source j's probes.
        normalised: shift A to be >= 0 and divide it by its sum.
    """
    law = np.asarray(np.linalg.solve(mixtures, falls.T).T, np.float64)
    if not normalised:
        return law
    law = law - min(0.0, float(law.min()))
    total = float(law.sum())
    return law / total if total > 0 else law


class AioliSettings(Rhythm):
    """What the schedule and the mixer share."""

    every: int = Field(100, ge=1)
    """Steps between the ends of two updates; the probes, rounds * steps * S, come first."""
    eta: float = Field(0.1, gt=0)
    """Step size; published runs take 0.1 to 1."""
    rounds: int = Field(4, ge=1)
    """Probes of each source before an update."""
    steps: int = Field(4, ge=1)
    """Training steps of one probe."""
    one_hot: float = Field(0.75, gt=0, le=1)
    """Share of a probe's own source."""
    normalised: bool = True
    """Shift and scale the law before it is followed."""


class Aioli(AioliSettings, Schedule):
    """Weights by a linear mixing law that is learned anew before every update."""

    kind: Literal["aioli"] = "aioli"

    def wants(self) -> Wants:
        """Losses on samples that stay the same."""
        return Wants(losses=True)

    def start(self, course: Course) -> State:
        """Uniform weights, and a first probe.

        Raises:
            CuveeError: the run ends before the first update.
        """
        if (probing := self.rounds * self.steps * len(course.sources)) >= course.steps:
            raise CuveeError(
                f"aioli probes {len(course.sources)} sources for {probing} steps before its first update, and the run "
                f"has {course.steps}; lower `rounds` or `steps`, or train longer"
            )
        return {**self.state(course.uniform, first=0), "shares": course.uniform.tolist(), "round": 0, "probes": []}

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """Begin or go on with probes; after the last one, follow the law they show."""
        if signals.losses is None:
            raise ContractError("aioli was told no losses")
        count = len(course.sources)
        if self.one_hot * count <= 1 and count > 1:
            raise ContractError(f"one_hot = {self.one_hot} gives a probe of {count} sources nothing to tell apart")
        probes = [*state["probes"], signals.losses.tolist()]
        order = self._order(state["round"], course)
        if len(probes) <= len(order):
            mixture = probe_mixtures(count, self.one_hot)[order[len(probes) - 1]]
            facts = {"weights": mixture.tolist(), "next": signals.step + self.steps, "probes": probes}
            return {**state, **facts}
        law = mixing_law(self._falls(probes, order, count), probe_mixtures(count, self.one_hot), self.normalised)
        shares = exponentiated(state["shares"], self.eta * law.sum(axis=0))
        rest = max(1, self.every - self.steps * len(order))
        moved = self.moved(state, shares, signals.step, course)
        facts = {"shares": moved["weights"], "round": state["round"] + 1, "probes": []}
        return {**moved, **facts, "next": signals.step + rest, "law": law.tolist()}

    def _order(self, number: int, course: Course) -> list[int]:
        """Which source is probed when: every source once a round, in an order of its own."""
        found: list[int] = []
        for part in range(self.rounds):
            noise = uniform_noise(course.sources, 0, f"aioli {course.seed}/{number}/{part}")
            found += np.argsort(noise, kind="stable").tolist()
        return found

    def _falls(self, probes: list[Any], order: list[int], count: int) -> Doubles:
        losses = np.array(probes)
        falls = np.zeros((losses.shape[1], count))
        for place, source in enumerate(order):
            falls[:, source] += losses[place] - losses[place + 1]
        return falls / self.rounds

    def final(self, state: State) -> Doubles:
        """(S,) the mean over the answers that followed the law; uniform before the first one."""
        return super().final(state) if state["count"] else weights_of({"weights": state["shares"]})


class AioliMixer(AioliSettings, ScheduledMixer):
    """Fixed weights for the export: the mean of Aioli's on a proxy connector."""

    kind: Literal["aioli"] = "aioli"

    def schedule(self) -> Schedule:
        """What the proxy is trained by."""
        return Aioli.model_validate(self.shared(Aioli))
