"""The learning rate of a step: linear warm-up, then a cosine; or a rate that can be gone on from for ever.

AdamW with betas (0.9, 0.95) and, by default, the rate 3e-4 with 3 % warm-up and a cosine that ends inside the budget:
MIR's ablation (arXiv:2410.07167, table of recipes) finds it better than LLaVA's 1e-3.
"""

import math

from stages.train.continual import Infinite
from stages.train.settings import TrainSettings


def rate(settings: TrainSettings, step: int) -> float:
    """Learning rate of a step, from 0: linear warm-up, then a cosine that reaches the floor at the last step."""
    rising = math.ceil(settings.warmup * settings.steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / (rising + 1)
    if settings.infinite is not None:
        return settings.learning_rate * endless(settings.infinite, settings.floor, settings.steps, step, rising)
    u = (step - rising) / max(1, settings.steps - 1 - rising)
    return settings.learning_rate * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * u)))


def endless(shape: Infinite, floor: float, steps: int, step: int, rising: int) -> float:
    """Rate after the warm-up, as a share of the peak: cosine cool-down, constant, exponential annealing."""
    cooling, annealing = math.ceil(shape.cooldown * steps), math.ceil(shape.anneal * steps)
    if step - rising < cooling:
        u = (step - rising) / cooling
        return shape.constant + (1 - shape.constant) * 0.5 * (1 + math.cos(math.pi * u))
    if step < steps - annealing:
        return shape.constant
    return float(shape.constant * (floor / shape.constant) ** ((step + 1 - steps + annealing) / annealing))
