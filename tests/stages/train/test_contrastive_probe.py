"""The probe against plain formulas, and on generated pairs: it learns what it is shown, and from the source shown."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from schemas.errors import CuveeError
from stages.train.contrastive_probe import (
    ContrastiveProbe,
    EmbeddedPairs,
    Trained,
    candidate_sets,
    evaluate_probe,
    train_probe,
)
from stages.train.contrastive_probe.maps import maps
from stages.train.contrastive_probe.training import contrastive_loss, gathered

SETTINGS = ContrastiveProbe(width=16, batch=32, candidates=8)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def source() -> Callable[..., EmbeddedPairs]:
    """Pairs whose image and caption embeddings are two views of one hidden vector, with views of the source's own."""

    def make(world: int, count: int, first: int = 0) -> EmbeddedPairs:
        views = np.random.default_rng(100 + world).normal(size=(2, 6, 24))
        hidden = np.random.default_rng([world, first]).normal(size=(count, 6))
        noise = np.random.default_rng([world, first, 1]).normal(size=(2, count, 24)) * 0.1
        images, captions = (unit(hidden @ view + part) for view, part in zip(views, noise, strict=True))
        numbers = np.arange(count) + 1000 * world + first
        return EmbeddedPairs(tuple(f"{world}-{n:05d}" for n in numbers), images, captions, numbers, numbers)

    return make


@pytest.fixture(scope="module")
def two(source: Callable[..., EmbeddedPairs]) -> tuple[dict[str, EmbeddedPairs], dict[str, EmbeddedPairs]]:
    return (
        {"a": source(1, 300), "b": source(2, 300)},
        {"a": source(1, 60, 5000), "b": source(2, 60, 6000), "target": source(1, 40, 7000)},
    )


def test_loss_and_scores_are_the_formulas(source: Callable[..., EmbeddedPairs]) -> None:
    pairs = source(1, 12)
    pairs.caption_ids[3] = pairs.caption_ids[7]
    module = maps(SETTINGS, 24, 24, "s")
    with torch.no_grad():
        u, v = (
            part.numpy().astype(np.float64) for part in module(torch.tensor(pairs.images), torch.tensor(pairs.captions))
        )
    scale = 1 / 0.07
    logits = scale * u @ v.T
    logits[3, 7] = logits[7, 3] = -np.inf
    forward = np.log(np.exp(np.diag(logits)) / np.exp(logits).sum(axis=1))
    backward = np.log(np.exp(np.diag(logits)) / np.exp(logits).sum(axis=0))
    drawn = [("a", i) for i in range(12)]
    loss = float(contrastive_loss(module, *gathered({"a": pairs}, drawn)).detach())
    assert loss == pytest.approx(-0.5 * (forward.mean() + backward.mean()), rel=1e-5)

    sets, nll, brier = candidate_sets(pairs, 5, 9, "a"), [], []
    settings = SETTINGS.model_copy(update={"candidates": 5})
    for one, other in ((u, v), (v, u)):
        for i, others in enumerate(sets):
            kept = [j for j in others if {i, j} != {3, 7}]
            p = np.exp(scale * other[kept] @ one[i])
            p /= p.sum()
            nll.append(-math.log(p[kept.index(i)]))
            brier.append(((p - (np.array(kept) == i)) ** 2).sum())
    found = evaluate_probe(settings, Trained(module, {}), {"a": pairs}, 9)["a"]
    assert found["nll"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert found["brier"] == pytest.approx(np.mean(brier), rel=1e-5)


def test_candidate_sets_hold_the_pair_first_and_each_pair_equally_often(source: Callable[..., EmbeddedPairs]) -> None:
    pairs = source(1, 20)
    sets = candidate_sets(pairs, 8, 0, "a")
    assert (sets[:, 0] == np.arange(20)).all() and all(len(set(row)) == 8 for row in sets.tolist())
    assert (np.bincount(sets.ravel()) == 8).all()
    turned = np.random.default_rng(0).permutation(20)
    moved = EmbeddedPairs(tuple(pairs.keys[i] for i in turned), *(4 * [pairs.image_ids]))
    again = candidate_sets(moved, 8, 0, "a")
    assert {tuple(pairs.keys[i] for i in row) for row in sets} == {tuple(moved.keys[i] for i in row) for row in again}


def test_it_learns_and_a_source_shown_more_is_known_better(two: tuple[dict[str, EmbeddedPairs], ...]) -> None:
    corpora, held = two
    few, many, most_a, most_b = (
        evaluate_probe(SETTINGS, train_probe(SETTINGS, corpora, budget, "0/0", np.array(weights)), held, 0)
        for budget, weights in ((128, [0.5, 0.5]), (4096, [0.5, 0.5]), (2048, [0.9, 0.1]), (2048, [0.1, 0.9]))
    )
    assert many["a"]["nll"] < 0.5 * few["a"]["nll"] and many["b"]["brier"] < few["b"]["brier"]
    assert many["a"]["nll"] < 0.6 * math.log(SETTINGS.candidates)
    for metric in ("nll", "brier"):
        assert most_a["a"][metric] < most_b["a"][metric] and most_a["b"][metric] > most_b["b"][metric]
        assert most_a["target"][metric] < most_b["target"][metric]  # of the kind of `a`


@pytest.mark.parametrize("hidden", [None, 20])
def test_equal_seeds_give_equal_bits_and_draws_follow_the_weights(
    two: tuple[dict[str, EmbeddedPairs], ...], hidden: int | None
) -> None:
    corpora, held = two
    settings = SETTINGS.model_copy(update={"hidden": hidden})
    weights = np.array([0.25, 0.75])
    one, twin, other = (train_probe(settings, corpora, 500, seed, weights) for seed in ("0/0", "0/0", "0/1"))
    scores = [evaluate_probe(settings, trained, held, 0) for trained in (one, twin, other)]
    assert scores[0] == scores[1] != scores[2]
    assert one.drawn == {"a": 128, "b": 384}  # 16 batches of 32


def test_twins_are_no_negatives(source: Callable[..., EmbeddedPairs]) -> None:
    pairs = source(1, 40)
    same = EmbeddedPairs(pairs.keys, pairs.images, pairs.captions, np.zeros(40, np.int64), pairs.caption_ids)
    trained = train_probe(SETTINGS, {"a": pairs}, 64, "0/0", np.ones(1))
    assert evaluate_probe(SETTINGS, trained, {"a": same}, 0)["a"] == {"nll": 0.0, "brier": 0.0}


def test_what_cannot_be_is_refused(source: Callable[..., EmbeddedPairs]) -> None:
    with pytest.raises(CuveeError, match="'a' has 7 pairs, fewer than the 8 `candidates`"):
        candidate_sets(source(1, 7), 8, 0, "a")
    broken = source(1, 20)
    broken.images[5] = np.nan
    with pytest.raises(CuveeError, match="the probe's loss is nan at step 0"):
        train_probe(SETTINGS, {"a": broken}, 64, "0/0", np.ones(1))
