"""Losses by group: a group is a concept in a source, as in group robustness (arXiv:1911.08731, arXiv:2212.01433).

A mean over tokens hides a concept that only one source gets wrong. The worst group and the mean over groups do not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
LEAST = 5
"""Samples from which a group is named the worst one: the loss of fewer is chance."""
SHUFFLES = 20


@dataclass(frozen=True)
class Group:
    """The samples of one concept in one source."""

    source: str
    concept: int
    samples: int
    nll: float
    """Nats per label token."""


def group_losses(
    losses: Doubles, tokens: Doubles, sources: Sequence[str], concepts: Sequence[int], least: int = LEAST
) -> dict[str, Any]:
    """NLL in nats per label token by group.

    `worst_group`: the highest of groups with `least` samples or more, `worst` that group; null where there is none.
    `group_balanced`: the mean over all groups that occur, each counting the same.
    `groups`: per group its source, concept, samples and nll, in order of both.

    Args:
        losses: (n,) summed NLL per sample.
        tokens: (n,) label tokens per sample, > 0 in every group.
        sources: (n,) names.
        concepts: (n,) numbers.
        least: samples a group needs to be the worst one.

    Raises:
        CuveeError: no samples.
    """
    if not len(losses):
        raise CuveeError("there is no held-out sample, so no group has a loss")
    pairs = sorted(set(zip(sources, concepts, strict=True)))
    numbers = {pair: number for number, pair in enumerate(pairs)}
    mine = np.array([numbers[pair] for pair in zip(sources, concepts, strict=True)])
    samples, nll = np.bincount(mine), np.bincount(mine, losses) / np.bincount(mine, tokens)
    groups = [
        Group(source, int(concept), int(samples[number]), float(nll[number]))
        for number, (source, concept) in enumerate(pairs)
    ]
    worst = max((group for group in groups if group.samples >= least), key=lambda group: group.nll, default=None)
    return {
        "group_balanced": float(nll.mean()),
        "worst_group": worst.nll if worst else None,
        "worst": asdict(worst) if worst else None,
        "groups": [asdict(group) for group in groups],
    }


def spurious_strength(sources: Sequence[str], concepts: Sequence[int], seed: int) -> dict[str, float]:
    """MI(concept; source) / H(concept), in [0, 1]: what a source's name says about the concept.

    0: sources hold the same concepts; 1: the source decides the concept. Counted, so it is above 0 also where nothing
    is planted: `spurious_strength_chance` is its mean over 20 shuffles of the sources. One concept alone gives 0.
    """
    _, source = np.unique(np.array(sources), return_inverse=True)
    _, concept = np.unique(np.array(concepts), return_inverse=True)
    rows = [str(i) for i in range(len(source))]
    orders = (np.argsort(uniform_noise(rows, seed, f"shuffled sources {n}"), kind="stable") for n in range(SHUFFLES))
    by_chance = float(np.mean([_strength(source[order], concept) for order in orders]))
    return {"spurious_strength": _strength(source, concept), "spurious_strength_chance": by_chance}


def _strength(source: Counts, concept: Counts) -> float:
    table = np.zeros((concept.max() + 1, source.max() + 1))
    np.add.at(table, (concept, source), 1)
    joint = table / table.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    held = joint > 0
    information = float((joint[held] * np.log(joint[held] / apart[held])).sum())
    share = joint.sum(axis=1)
    entropy = -float((share * np.log(share)).sum())
    return min(1.0, max(0.0, information / entropy)) if entropy > 0 else 0.0
