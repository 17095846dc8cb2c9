"""Says why nothing keeps all ceilings: the metrics and the limit that a proof of it needs."""

import numpy as np

from stages.mixture.proposer.box import Box, Doubles
from stages.mixture.proposer.certificate import least_excess
from stages.mixture.proposer.program import Program

MATTERS = 1e-6


def collision(program: Program, point: Doubles) -> str:
    """A sentence naming what collides, for a program that no point keeps; `point` (k,) has the least excess found.

    With the multipliers of the proof, a metric counts by its own, a limit by what it would cost to move it.
    """
    least, prices = least_excess(program, point)
    order = [int(i) for i in np.argsort(-prices, kind="stable") if prices[i] > MATTERS]
    metrics = [f"`{program.ceilings[i].name}`" for i in order[:2]]
    limit = _in_the_way(program, prices @ program.excess_slopes(point))
    rise = f"by at least {max(least, 0.0):.3g} of its spread over the trials"
    if len(metrics) == 1:
        colliding = f"{metrics[0]} and {limit or 'the limits'} collide: the metric rises {rise}"
        return f"{colliding}; raise that limit, give the metric up, or leave out `no_worse_than`"
    way = f" where `{limit}` is in the way" if limit else ""
    return (
        f"{metrics[0]} and {metrics[1]} collide{way}: one of them rises {rise}; raise the limit, give one of them up, "
        "or leave out `no_worse_than`"
    )


def _in_the_way(program: Program, costs: Doubles) -> str:
    """The limit whose move would lower costs @ p fastest."""
    reduced = costs - _price(program.box, costs)
    held = [
        (abs(float(cost)), (program.limits.upper if cost < 0 else program.limits.lower)[i])
        for i, cost in enumerate(reduced)
    ]
    named = [(size, name) for size, name in held if name and size > 0]
    return max(named)[1] if named else ""


def _price(box: Box, costs: Doubles) -> float:
    """What a share costs at the lowest vertex: that of the last source that was filled."""
    order = np.argsort(costs, kind="stable")
    filled = box.lower.sum() + np.cumsum((box.upper - box.lower)[order])
    return float(costs[order[min(int(np.searchsorted(filled, 1 - MATTERS)), len(order) - 1)]])
