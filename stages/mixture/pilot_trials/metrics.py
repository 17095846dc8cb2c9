"""Which metrics of a table count, and how much."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from schemas.errors import RecipeError

TARGET = "target"
"""The held-out set that the objective is about, where the runs were measured on it."""


def weights_of(asked: Mapping[str, float] | None, metrics: Sequence[str]) -> dict[str, float]:
    """Weights by metric, summing to 1: as asked; else those held out of the target, all alike; else all, all alike.

    A metric of weight 0 is in no sum, but must not get worse where that is asked for.

    Raises:
        RecipeError: a metric that the table does not have, or no weight above 0.
    """
    if asked is None:
        chosen = [name for name in metrics if name.partition(".")[2] == TARGET] or list(metrics)
        return dict.fromkeys(chosen, 1 / len(chosen))
    for name in asked:
        if name not in metrics:
            close = get_close_matches(name, metrics, 1, 0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(metrics)}"
            raise RecipeError(f"`metrics` names {name!r}, which the table of trials does not have; {hint}")
    total = sum(asked.values())
    if not total > 0:
        raise RecipeError(f"`metrics` gives no weight above 0, found {dict(asked)}; weigh at least one metric")
    return {name: asked[name] / total for name in sorted(asked)}
