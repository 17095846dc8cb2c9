"""Group MixUp: samples of the majority meet samples of a minority of their own class (arXiv:2212.01433, section 4.3).

    x' = w x_i + (1 - w) x_j,    D' = w D_i + (1 - w) D_j

j is a sample of i's class that the biased branch gets wrong, i.e. whose attribute is not the usual one; where the class
has none, any sample of it. w is uniform in [1 - 2t, 1 - t] with t = exp(-5 (1 - step/ramp)^2) / 2: at first there is
next to no mixing, in the end the minority weighs at least half.
"""

import math

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def partners(drawn: Integers, labels: Integers, minority: Booleans, random: np.random.Generator) -> Integers:
    """(b,) a partner for each drawn sample.

    Args:
        drawn: (b,) numbers of samples.
        labels: (n,) of all samples.
        minority: (n,) whether the biased branch was wrong about a sample when it last saw it.
        random: draws them.
    """
    found = np.empty_like(drawn)
    for label in np.unique(labels[drawn]):
        mine = labels[drawn] == label
        rare = np.flatnonzero((labels == label) & minority)
        among = rare if len(rare) else np.flatnonzero(labels == label)
        found[mine] = random.choice(among, int(mine.sum()))
    return found


def majority_weights(count: int, step: int, ramp: int, random: np.random.Generator) -> Doubles:
    """(count,) w in [1 - 2t, 1 - t]."""
    t = 0.5 * math.exp(-5 * (1 - min(1.0, step / ramp)) ** 2)
    return random.uniform(1 - 2 * t, 1 - t, count)
