"""TiKMiX-D: the mixture whose first-order influence on the targets is largest (arXiv:2508.17677).

    I_ir = <g_i, H^-1 g_r>          how much a step on source i lowers the loss of target r, to first order
    max over the simplex of  sum_i p_i c_i + entropy * H(p),   c_i = mean_r I_ir / scale
    subject to  sum_i p_i I_ir >= min(0, what the mixture so far gives target r)      no target is hurt

g are gradients of mean losses, H is the identity or a diagonal, H(p) the entropy, `scale` the largest |mean_r I_ir|, so
that `entropy` means the same at every stage of training. Solved anew every phase. The program is concave and has one
solution, p_i ~ exp((c_i + sum_r l_r I_ir / scale) / entropy); the multipliers l >= 0 minimise its smooth dual.
The paper was withdrawn from review; its further regulariser and its regression variant (TiKMiX-M) are not here.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from schemas.errors import ContractError
from stages.schedule import Course, Doubles, Rhythm, Schedule, Signals, State, Wants, on_simplex
from stages.scheduled_mixer import ScheduledMixer


def best_mixture(influence: Doubles, floors: Doubles, entropy: float) -> Doubles:
    """(S,) the mixture of largest influence plus entropy that hurts no target.

    Args:
        influence: (S, R) influence of source i on target r.
        floors: (R,) least influence of the mixture on each target; some mixture must reach them all.
        entropy: weight of the entropy, > 0.
    """
    from scipy.optimize import minimize

    gains = influence.mean(axis=1)
    scale = float(np.abs(gains).max()) or 1.0
    c, rows, least = gains / scale, influence / scale, floors / scale

    def mixture(multipliers: Doubles) -> tuple[Doubles, float]:
        logs = (c + rows @ multipliers) / entropy
        raised = np.exp(logs - logs.max())
        return raised / raised.sum(), float(entropy * (logs.max() + np.log(raised.sum())))

    def dual(multipliers: npt.NDArray[np.float64]) -> tuple[float, Doubles]:
        shares, value = mixture(multipliers)
        return value - float(multipliers @ least), shares @ rows - least

    first, _ = mixture(np.zeros(len(least)))
    if (first @ rows >= least).all():
        return first
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    found = minimize(dual, np.zeros(len(least)), jac=True, bounds=[(0, None)] * len(least), options=options)
    return mixture(np.asarray(found.x, np.float64))[0]


class TiKMiXDSettings(Rhythm):
    """What the schedule and the mixer share."""

    every: int = Field(100, ge=1)
    """Steps of a phase."""
    probe: int = Field(64, ge=1)
    """Samples of each source, and of each target, behind one phase."""
    entropy: float = Field(0.5, gt=0)
    """Weight of the entropy beside influences whose largest mean is 1."""
    preconditioner: Literal["identity", "diagonal"] = "identity"
    """H: `diagonal` divides each coordinate by the root of Adam's second moment, as a training step does."""
    guarded: bool = True
    """No target is hurt."""


class TiKMiXD(TiKMiXDSettings, Schedule):
    """The best mixture by first-order influence, anew every phase."""

    kind: Literal["tikmix_d"] = "tikmix_d"

    def wants(self) -> Wants:
        """Influences; where sources are their own targets, on samples apart, so that noise does not flatter itself."""
        return Wants(gradients=self.preconditioner, apart=True)

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """The best mixture of this phase."""
        if (influence := signals.products) is None:
            raise ContractError("tikmix_d was told no gradients")
        floors = np.minimum(0.0, np.array(state["weights"]) @ influence)
        if not self.guarded:
            floors = np.full(influence.shape[1], -np.inf)
        return self.moved(state, on_simplex(best_mixture(influence, floors, self.entropy)), signals.step, course)


class TiKMiXDMixer(TiKMiXDSettings, ScheduledMixer):
    """Fixed weights for the export: the mean over TiKMiX-D's phases on a proxy connector."""

    kind: Literal["tikmix_d"] = "tikmix_d"

    def schedule(self) -> Schedule:
        """What the proxy is trained by."""
        return TiKMiXD.model_validate(self.shared(TiKMiXD))
