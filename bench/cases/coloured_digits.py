"""Coloured handwritten digits: the colour goes with the class in most of the training set and in none of the test set.

Real digits, 8 x 8 in 17 greys (scikit-learn's copy of the UCI set, 1,797 of them), split by digit into training,
validation and test, before anything else. Training digits are shown in nine places (moved by up to one pixel), so that
there are enough copies for half a per cent to be more than a handful; each copy draws its colour on its own.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
CLASSES, TRAIN, VALIDATION = 10, 1000, 297
COLOURS = np.array(
    [
        [0.9, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.3, 0.9], [0.9, 0.8, 0.1], [0.8, 0.2, 0.8],
        [0.1, 0.8, 0.8], [0.9, 0.5, 0.1], [0.5, 0.5, 0.9], [0.6, 0.9, 0.4], [0.9, 0.6, 0.7],
    ]
)  # fmt: skip
NOISE = 0.04
"""Standard deviation of a copy's colour around its colour's centre, per channel."""


@dataclass(frozen=True)
class Coloured:
    """Pictures with the class that they show and the colour that they have."""

    pixels: Floats
    """(n, 192) in about [0, 1]."""
    labels: Integers
    colours: Integers


@cache
def splits() -> dict[str, tuple[Floats, Integers]]:
    """(n, 8, 8) greys in [0, 1] and (n,) classes of each split; no digit is in two."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = (digits.images / 16).astype(np.float32)[order], digits.target[order].astype(np.int64)
    held = TRAIN + VALIDATION
    ends = {"train": slice(0, TRAIN), "validation": slice(TRAIN, held), "test": slice(held, None)}
    return {name: (images[part], labels[part]) for name, part in ends.items()}


def biased(minority: float, seed: int) -> Coloured:
    """The training set: all copies but a share of `minority`, rounded, have the colour of their class."""
    random = np.random.default_rng([seed, 1])
    images, labels = splits()["train"]
    moved = np.concatenate([_moved(images, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)])
    labels = np.tile(labels, 9)
    colours = labels.copy()
    rare = random.permutation(len(labels))[: round(minority * len(labels))]
    colours[rare] = (labels[rare] + random.integers(1, CLASSES, len(rare))) % CLASSES
    return Coloured(_painted(moved, colours, random), labels, colours)


def balanced(split: str, seed: int) -> Coloured:
    """Each digit of a split in each of the ten colours: all hundred groups as the classes are."""
    random = np.random.default_rng([seed, 2])
    images, labels = splits()[split]
    colours = np.repeat(np.arange(CLASSES), len(labels))
    return Coloured(_painted(np.tile(images, (CLASSES, 1, 1)), colours, random), np.tile(labels, CLASSES), colours)


def _moved(images: Floats, down: int, right: int) -> Floats:
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return wide[:, 1 + down : 9 + down, 1 + right : 9 + right]


def _painted(images: Floats, colours: Integers, random: np.random.Generator) -> Floats:
    paint = COLOURS[colours] + random.normal(0, NOISE, (len(colours), 3))
    painted: Floats = (images[:, None] * paint[:, :, None, None]).reshape(len(images), -1).astype(np.float32)
    return painted
