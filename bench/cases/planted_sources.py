"""Features of two sources and ten concepts: a source holds five of the concepts nineteen times as often as the others.

A feature is a direction of its concept, a direction of its source and noise of variance one. In the test set every
group (concept, source) is as large as any other.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
CONCEPTS, SOURCES, WIDTH = 10, 2, 32
CONCEPT, STYLE = 2.5, 4.0
"""Lengths of the two directions."""


@dataclass(frozen=True)
class Planted:
    """Features with both truths."""

    features: Doubles
    concepts: Integers
    sources: Integers


def planted(samples: int, alignment: float, seed: int, draw: int) -> Planted:
    """A set of the world `seed`, in which concepts below 5 come from source 0 with probability `alignment`.

    Args:
        samples: how many.
        alignment: 0.95 for training, 0.5 for the balanced set.
        seed: of the directions.
        draw: which set of this world.
    """
    world, random = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1, draw])
    directions, _ = np.linalg.qr(world.normal(size=(WIDTH, CONCEPTS + 1)))
    concepts = np.arange(samples) % CONCEPTS
    usual = (concepts >= CONCEPTS // SOURCES).astype(np.int64)
    sources = np.where(random.random(samples) < alignment, usual, 1 - usual)
    signal = CONCEPT * directions[:, concepts].T + STYLE * np.outer(sources - 0.5, directions[:, CONCEPTS])
    return Planted(signal + random.normal(size=(samples, WIDTH)), concepts, sources)
