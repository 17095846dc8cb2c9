"""Planted domains: the scope of the balance loss decides whether experts specialise (arXiv:2501.11873, 2604.07030)."""

import pytest

from bench.cases.planted_domains import BY_SOURCE, World, measured, trained
from stages.train.metrics.expert_specialisation import gap_closed


def runs(seeds: int, steps: int, **settings: object) -> list[dict[str, float]]:
    worlds = [World.drawn(seed) for seed in range(seeds)]
    return [measured(trained(world, seed, steps, **settings), world, seed) for seed, world in enumerate(worlds)]


def compare(seeds: int, steps: int, margin: float) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Runs balanced over the global batch, and those of the reference."""
    spread, apart = runs(seeds, steps, scope="global_batch"), runs(seeds, steps, scope="sequence")
    reference = runs(seeds, steps, **BY_SOURCE)
    for mine, sequence, told in zip(spread, apart, reference, strict=True):
        assert told["nmi"] == pytest.approx(1.0) and told["agreement"] == 1.0
        assert mine["nmi"] > sequence["nmi"] + margin and mine["loss"] < sequence["loss"]
        assert mine["utilisation"] >= 0.9 and mine["dead_experts"] == 0
        assert told["swap_cost"] > mine["swap_cost"] > sequence["swap_cost"]
    return spread, reference


def test_a_global_batch_lets_experts_specialise() -> None:
    """The beginning of a run; where it ends is measured with five seeds."""
    compare(seeds=1, steps=110, margin=0.05)


@pytest.mark.slow
def test_a_global_batch_lets_experts_specialise_on_five_seeds() -> None:
    mine, told = compare(seeds=5, steps=300, margin=0.1)
    for dense, moe, reference in zip(runs(5, 300, router="dense"), mine, told, strict=True):
        share = gap_closed(dense["loss"], moe["loss"], reference["loss"]).share
        assert share is not None and 0.3 < share <= 1.0
