"""Evaluation with fixed negatives, so that values of any two probes compare.

Every held-out pair is set against itself and the `candidates` - 1 that follow it in an order by hash(seed, key). A
probe that knows nothing has a negative log-likelihood of log(candidates).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise
from stages.train.contrastive_probe.pairs import ContrastiveProbe, EmbeddedPairs, Integers
from stages.train.contrastive_probe.training import Trained
from stages.train.language_model import one_thread

METRICS = ("nll", "brier")


def evaluate_probe(
    settings: ContrastiveProbe, trained: Trained, held: Mapping[str, EmbeddedPairs], seed: int
) -> dict[str, dict[str, float]]:
    """Per held-out source, means over pairs and both directions; lower is better.

    `nll`: nats; -log of the probability that the pair's own partner gets among its candidates.
    `brier`: sum_j (p_j - [j is its own])^2 of those probabilities, in [0, 2].

    Raises:
        CuveeError: a source has fewer pairs than `candidates`.
    """
    import torch

    with one_thread(), torch.inference_mode():
        return {name: _scores(settings, trained.module, pairs, seed, name) for name, pairs in sorted(held.items())}


def candidate_sets(pairs: EmbeddedPairs, count: int, seed: int, name: str) -> Integers:
    """(n, count) pair numbers that each pair is set against, its own first.

    Raises:
        CuveeError: fewer pairs than `count`.
    """
    if len(pairs) < count:
        raise CuveeError(
            f"held-out source {name!r} has {len(pairs)} pairs, fewer than the {count} `candidates` that each is set "
            "against; hold out more, or lower `candidates`"
        )
    order = np.argsort(uniform_noise(pairs.keys, seed, "probe candidates"), kind="stable")
    place = np.argsort(order, kind="stable")
    found: Integers = order[(place[:, None] + np.arange(count)) % len(pairs)]
    return found


def _scores(settings: ContrastiveProbe, module: Any, pairs: EmbeddedPairs, seed: int, name: str) -> dict[str, float]:
    import torch

    sets = candidate_sets(pairs, settings.candidates, seed, name)
    u, v = module(torch.from_numpy(pairs.images), torch.from_numpy(pairs.captions))
    alike = torch.from_numpy(_alike(pairs.image_ids, pairs.caption_ids, sets))
    sums = dict.fromkeys(METRICS, 0.0)
    for one, other in ((u, v), (v, u)):
        logits = module.scale() * torch.einsum("nk,nck->nc", one, other[torch.from_numpy(sets)])
        told = logits.masked_fill(alike, -math.inf).double().log_softmax(dim=1)
        spoken = told.exp()
        sums["nll"] -= float(told[:, 0].sum())
        sums["brier"] += float((spoken.square().sum(dim=1) - 2 * spoken[:, 0] + 1).sum())
    return {metric: value / (2 * len(pairs)) for metric, value in sums.items()}


def _alike(image_ids: Integers, caption_ids: Integers, sets: Integers) -> npt.NDArray[np.bool_]:
    """(n, count) candidates that share image or caption with the pair, itself excepted."""
    alike = (image_ids[sets] == image_ids[sets[:, :1]]) | (caption_ids[sets] == caption_ids[sets[:, :1]])
    alike[:, 0] = False
    return np.asarray(alike, np.bool_)
