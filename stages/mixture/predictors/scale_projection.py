"""What a metric will be at a budget nobody ran: a straight line in log N through the laws of several budgets.

projektor (arXiv:2307.02460, section 4.3) draws it through two, N0 and N1:

    L(N) = (log(N/N0) L(N1) - log(N/N1) L(N0)) / log(N1/N0)

With 1,000, 1,500 and 10,000 that is 5.679 L(N1) - 4.679 L(N0), which multiplies the noise of the pilots by 7.4; with
N1 four times N0 and N ten times it is 1.8. Through three budgets and more we take the weighted least squares line in
log N at every mixture, a budget's weight being the inverse of its law's squared error: two budgets are the special
case. Whatever the weights, L(N) = sum_b h_b L_b, and the noise amplification is |h|: by how much errors that are alike
and independent at all budgets grow. Where budgets lie off the line by more than their errors explain, errors grow by as
much (Birge's ratio).

The interval of a projection is that of its expectation, from the laws' errors: it cannot know how noisy a run is at a
budget that nobody ran. A projection whose interval is as wide as all there is between the mixtures ranks nothing and
is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.predictors.predictor import COVERAGE, Doubles, Predictor

BUDGETS = 3
"""Needed unless two are asked for in so many words."""
_SMALLEST = 1e-12
_LEAST_ERROR = 1e-3
"""Of the largest: a budget without measurable error must not silence the others."""


def line_weights(budgets: Sequence[int], budget: float, counts: Doubles | None = None) -> Doubles:
    """(B,) h: what each budget's value is multiplied by to get the value of the line in log N at `budget`.

    Args:
        budgets: two different ones or more.
        budget: where to, > 0.
        counts: (B,) weights > 0 of the regression; all alike by default.

    Raises:
        CuveeError: budgets that are not positive, or all the same.
    """
    if min(budgets, default=0) <= 0 or budget <= 0 or len(set(budgets)) < 2:
        raise CuveeError(f"a line in log N takes two different budgets above 0, found {list(budgets)} for {budget}")
    counts = np.ones(len(budgets)) if counts is None else counts
    at = np.log(np.asarray(budgets, float))
    middle = (counts * at).sum() / counts.sum()
    away = at - middle
    found: Doubles = counts / counts.sum() + counts * away * (np.log(budget) - middle) / (counts * away**2).sum()
    return found


def amplification(weights: Doubles) -> float:
    """By how much the noise of the pilots is multiplied: |h|."""
    return float(np.sqrt((weights**2).sum()))


@dataclass(frozen=True, eq=False)
class ScaleProjection:
    """The law of a metric at a budget nobody ran."""

    laws: tuple[Predictor, ...]
    """(B,) by budget."""
    budgets: tuple[int, ...]
    budget: int
    weights: Doubles
    """(B,) h."""
    off_line: float
    """Birge's ratio: by how much more budgets lie off their lines than the laws' errors explain, >= 1."""

    @property
    def amplification(self) -> float:
        """Of noise."""
        return amplification(self.weights)

    @property
    def convex(self) -> bool:
        """Only if no budget counts negatively: a difference of convex laws need not be convex."""
        return all(law.convex for law in self.laws) and bool((self.weights >= 0).all())

    @property
    def smooth(self) -> bool:
        """If all laws are."""
        return all(law.smooth for law in self.laws)

    def predict(self, mixtures: Doubles) -> Doubles:
        """sum_b h_b L_b."""
        return self._each(mixtures) @ self.weights

    def error(self, mixtures: Doubles) -> Doubles:
        """From the laws' errors, independent of each other, grown where the budgets are off the line."""
        errors = np.stack([law.error(mixtures) for law in self.laws], axis=1)
        spread: Doubles = self.off_line * np.sqrt((errors**2) @ (self.weights**2))
        return spread

    def interval(self, mixtures: Doubles) -> Doubles:
        """Of the expectation."""
        from scipy.stats import norm

        predicted, reach = self.predict(mixtures), norm.ppf((1 + COVERAGE) / 2) * self.error(mixtures)
        return np.stack([predicted - reach, predicted + reach], axis=1)

    def gradient(self, mixtures: Doubles) -> Doubles:
        """sum_b h_b grad L_b."""
        slopes: Doubles = np.einsum("b,bij->ij", self.weights, np.stack([law.gradient(mixtures) for law in self.laws]))
        return slopes

    def sentence(self) -> str:
        """For reports."""
        by = ", ".join(f"{weight:+.3f} x {budget:,}" for weight, budget in zip(self.weights, self.budgets, strict=True))
        return f"projected to {self.budget:,} samples as {by}: noise grows {self.amplification:.2f} times"

    def _each(self, mixtures: Doubles) -> Doubles:
        return np.stack([law.predict(mixtures) for law in self.laws], axis=1)


def scale_projection(
    laws: Mapping[int, Predictor], budget: int, mixtures: Doubles, least_budgets: int = BUDGETS
) -> ScaleProjection:
    """Project the laws of a metric, by budget, to `budget`.

    Args:
        laws: budget -> law, each fitted to the runs of that budget.
        budget: where to.
        mixtures: (n, S) which mixtures are to be told apart, e.g. those of the runs.
        least_budgets: 2 for projektor's closed form.

    Raises:
        CuveeError: too few budgets, or the interval swallows the range of the predictions over `mixtures`.
    """
    if len(laws) < max(least_budgets, 2):
        raise CuveeError(
            f"a projection takes runs at {max(least_budgets, 2)} budgets or more, found {sorted(laws)}; run trials at "
            "more budgets"
        )
    budgets = tuple(sorted(laws))
    budgets = tuple(sorted(laws))
    ordered = tuple(laws[b] for b in budgets)
    errors = np.stack([law.error(mixtures) for law in ordered], axis=1)
    typical = np.sqrt((errors**2).mean(axis=0))
    counts = 1 / np.maximum(typical, max(float(typical.max()), _SMALLEST) * _LEAST_ERROR) ** 2
    values = np.stack([law.predict(mixtures) for law in ordered], axis=1)
    found = ScaleProjection(
        ordered, budgets, budget, line_weights(budgets, budget, counts), _off_line(values, errors, budgets, counts)
    )
    refuse_swallowed(found, mixtures)
    return found


def _off_line(values: Doubles, errors: Doubles, budgets: Sequence[int], counts: Doubles) -> float:
    """Birge's ratio of values (n, B) with errors (n, B), over all mixtures; 1 where two budgets lie on every line."""
    if len(budgets) == 2:
        return 1.0
    onto = np.stack([line_weights(budgets, budget, counts) for budget in budgets])
    off = (values - values @ onto.T) / np.maximum(errors, _SMALLEST)
    return max(1.0, float(np.sqrt((off**2).sum(axis=1).mean() / (len(budgets) - 2))))


def refuse_swallowed(projection: ScaleProjection, mixtures: Doubles) -> None:
    """A projection has to tell mixtures apart.

    Raises:
        CuveeError: its interval, median over the mixtures, is as wide as the range of its predictions, with numbers.
    """
    ends = projection.interval(mixtures)
    width, across = float(np.median(ends[:, 1] - ends[:, 0])), float(np.ptp(projection.predict(mixtures)))
    if width < across:
        return
    least, most = projection.budgets[0], projection.budgets[-1]
    raise CuveeError(
        f"the projection from {least:,}-{most:,} to {projection.budget:,} samples is not told apart from noise: its "
        f"95 % interval is {width:.3g} wide, the predictions of all mixtures lie within {across:.3g} (noise grows "
        f"{projection.amplification:.2f} times); run trials at larger budgets, at more seeds, or project less far"
    )
