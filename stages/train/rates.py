"""The learning rate of a step: linear warm-up, then a cosine.

AdamW with betas (0.9, 0.95) and, by default, the rate 3e-4 with 3 % warm-up and a cosine that ends inside the budget:
MIR's ablation (arXiv:2410.07167, table of recipes) finds it better than LLaVA's 1e-3.
"""

import math

from stages.train.settings import TrainSettings


def rate(settings: TrainSettings, step: int) -> float:
    """Learning rate of a step, from 0: linear warm-up, then a cosine that reaches the floor at the last step."""
    rising = math.ceil(settings.warmup * settings.steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / (rising + 1)
    u = (step - rising) / max(1, settings.steps - 1 - rising)
    return settings.learning_rate * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * u)))
