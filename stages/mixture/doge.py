"""DoGE: more of the source whose gradient helps the others, or the targets (Fan et al., arXiv:2310.15393).

    score_i = rate * <g_i, sum over rows of g> / mean_i |g_i|,   clipped to rate * [least, most]
    log a_i += score_i / mu,   a <- softmax(log a)

g are gradients of mean losses per label token, each cut to norm `clip`; `rate` is the step's learning rate. The rows
are the targets, or the sources themselves, and then a source's product with itself is left out. The recommended mixture
is the mean of a over all updates. As published, a harmful source is never pushed down itself (the lower clip is 0): the
others rise above it.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from schemas.errors import ContractError
from stages.schedule import Course, Doubles, Rhythm, Schedule, Signals, State, Wants, exponentiated
from stages.scheduled_mixer import ScheduledMixer

TINY = 1e-6


def scores(products: Doubles, norms: Doubles, rate: float, own: bool, least: float, most: float) -> Doubles:
    """(S,) clipped scores.

    Args:
        products: (S, R) inner products of the sources' gradients with the rows'.
        norms: (S,) the sources' gradient norms.
        rate: learning rate.
        own: the rows are the sources: leave out the diagonal.
        least: lower clip, in units of the rate.
        most: upper clip, in units of the rate.
    """
    told = products.sum(axis=1) - (np.diagonal(products) if own else 0.0)
    found: Doubles = np.clip(rate * told / (norms.mean() + TINY), rate * least, rate * most)
    return found


class DoGESettings(Rhythm):
    """What the schedule and the mixer share."""

    mu: float = Field(0.05, gt=0)
    """Strength of the Bregman term: the smaller, the faster weights move."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of one gradient."""
    least: float = 0.0
    """Lower clip of a score, in units of the learning rate; -5 lets harm count as much as help."""
    most: float = 5.0
    """Upper clip of a score, in units of the learning rate."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Share that is spread evenly."""


class DoGE(DoGESettings, Schedule):
    """Mirror descent on the alignment of gradients."""

    kind: Literal["doge"] = "doge"

    def wants(self) -> Wants:
        """Inner products of gradients."""
        return Wants(gradients="identity", clip=self.clip)

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """One step of mirror descent."""
        if signals.products is None or signals.norms is None:
            raise ContractError("doge was told no gradients")
        own = not course.targets
        found = scores(signals.products, signals.norms, signals.rate, own, self.least, self.most)
        weights = exponentiated(state["weights"], found / self.mu, self.smoothing)
        return self.moved(state, weights, signals.step, course)


class DoGEMixer(DoGESettings, ScheduledMixer):
    """Fixed weights for the export: the mean of DoGE's on a proxy connector."""

    kind: Literal["doge"] = "doge"

    def schedule(self) -> Schedule:
        """What the proxy is trained by."""
        return DoGE.model_validate(self.shared(DoGE))
