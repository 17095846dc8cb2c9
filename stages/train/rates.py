"""The learning rate of a step: linear warm-up, then a cosine; one cycle; or a rate that can be gone on from for ever.

AdamW with betas (0.9, 0.95) and, by default, the rate 3e-4 with 3 % warm-up and a cosine that ends inside the budget:
MIR's ablation (arXiv:2410.07167, table of recipes) finds it better than LLaVA's 1e-3.

A rate is a function of u, the share of the budget that is used (arXiv:2307.06440), in whatever unit it is given:
u = (begun - warm-up) / (total - cost - warm-up), so that the step which uses the budget up has u = 1 and the floor.
"""

import math

from stages.train.budget import Stand
from stages.train.continual import Infinite
from stages.train.settings import TrainSettings


def rate(settings: TrainSettings, stand: Stand) -> float:
    """Learning rate of the step that stands there: up linearly, then down to the floor, which the last step has."""
    peak, floor = settings.learning_rate, settings.floor
    rising = math.ceil((0.5 if settings.rate == "one_cycle" else settings.warmup) * stand.total)
    if settings.infinite is None and stand.is_last and stand.begun:
        return peak * floor
    if stand.begun < rising:
        return peak * (stand.begun + stand.cost) / (rising + stand.cost)
    if settings.infinite is not None:
        return peak * endless(settings.infinite, floor, stand, rising)
    u = min(1.0, (stand.begun - rising) / max(1, stand.total - stand.cost - rising))
    down = 1 - u if settings.rate == "one_cycle" else 0.5 * (1 + math.cos(math.pi * u))
    return peak * (floor + (1 - floor) * down)


def endless(shape: Infinite, floor: float, stand: Stand, rising: int) -> float:
    """Rate after the warm-up, as a share of the peak: cosine cool-down, constant, exponential annealing."""
    cooling, annealing = math.ceil(shape.cooldown * stand.total), math.ceil(shape.anneal * stand.total)
    if stand.begun - rising < cooling:
        u = (stand.begun - rising) / cooling
        return shape.constant + (1 - shape.constant) * 0.5 * (1 + math.cos(math.pi * u))
    if stand.begun < stand.total - annealing:
        return shape.constant
    annealed = min(1.0, (stand.begun + stand.cost - stand.total + annealing) / annealing)
    return float(shape.constant * (floor / shape.constant) ** annealed)
