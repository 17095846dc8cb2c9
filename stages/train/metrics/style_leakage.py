"""Style leakage: can a linear classifier tell from connector outputs which source an image comes from?

Accuracy of a multinomial logistic regression on held-out images, minus that of always naming the training images'
most frequent source. What is told apart is style or content: a high value with a low spurious strength is style.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise
from stages.train.metrics.bootstrap import bootstrap_interval

Doubles = npt.NDArray[np.float64]
FOLDS = 5
PENALTY = 1.0
"""Of the squared weights, beside the summed loss over standardised features."""


def style_leakage(outputs: Doubles, sources: Sequence[str], images: Sequence[str], seed: int) -> dict[str, Any]:
    """`leakage` in [-1, 1] with its 95 % bootstrap interval over images, `accuracy` and `majority` in [0, 1].

    Five folds by image, so that twins are on one side; each image is judged by the classifier that did not see it.

    Args:
        outputs: (n, d) mean connector output per sample.
        sources: (n,) names, two or more.
        images: (n,) image hashes.
        seed: of the folds and the bootstrap.

    Raises:
        CuveeError: fewer than two sources, or fewer images than folds.
    """
    names, labels = np.unique(np.array(sources), return_inverse=True)
    distinct = sorted(set(images))
    if len(names) < 2 or len(distinct) < FOLDS:
        raise CuveeError(
            f"found {len(names)} sources and {len(distinct)} images, expected 2 and {FOLDS} or more; style leakage "
            "compares sources"
        )
    order = np.argsort(uniform_noise(distinct, seed, "style leakage folds"), kind="stable")
    fold_of = {distinct[place]: rank % FOLDS for rank, place in enumerate(order)}
    fold = np.array([fold_of[image] for image in images])
    right, usual = np.zeros(len(labels)), np.zeros(len(labels))
    for number in range(FOLDS):
        held = fold == number
        told = classify(outputs[~held], labels[~held], outputs[held], len(names))
        right[held] = told == labels[held]
        usual[held] = np.bincount(labels[~held], minlength=len(names)).argmax() == labels[held]
    low, high = bootstrap_interval(right - usual, np.ones(len(right)), images, seed)
    found = {"leakage": (right - usual).mean(), "low": low, "high": high}
    return {name: float(value) for name, value in {**found, "accuracy": right.mean(), "majority": usual.mean()}.items()}


def classify(train: Doubles, labels: npt.NDArray[np.int64], asked: Doubles, classes: int) -> npt.NDArray[np.int64]:
    """(m,) most likely class of (m, d) rows by a logistic regression on (n, d) rows, in float64 from zero weights."""
    from stages.train.logistic import fit_logistic

    train = np.asarray(train, np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    weights, bias = fit_logistic((train - mean) / scale, labels, classes, PENALTY)
    told: npt.NDArray[np.int64] = ((asked - mean) / scale @ weights.T + bias).argmax(axis=1)
    return told
