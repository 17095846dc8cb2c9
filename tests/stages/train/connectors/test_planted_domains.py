"""Planted domains: the scope of the balance loss decides whether experts specialise (arXiv:2501.11873, 2604.07030)."""

import pytest

from bench.cases.planted_domains import BY_SOURCE, World, measured, trained
from stages.train.metrics.expert_specialisation import gap_closed


def runs(seeds: int, steps: int, **settings: object) -> list[dict[str, float]]:
    worlds = [World.drawn(seed) for seed in range(seeds)]
    return [measured(trained(world, seed, steps, **settings), world, seed) for seed, world in enumerate(worlds)]


def compare(seeds: int, steps: int) -> None:
    spread, apart = runs(seeds, steps, scope="global_batch"), runs(seeds, steps, scope="sequence")
    reference, dense = runs(seeds, steps, **BY_SOURCE), runs(seeds, steps, router="dense")
    for mine, sequence, told, one in zip(spread, apart, reference, dense, strict=True):
        assert told["nmi"] == pytest.approx(1.0) and told["agreement"] == 1.0
        assert mine["nmi"] > sequence["nmi"] + 0.1 and mine["loss"] < sequence["loss"]
        assert mine["utilisation"] >= 0.9 and mine["dead_experts"] == 0
        assert mine["swap_cost"] > 0 and told["swap_cost"] > sequence["swap_cost"]
        share = gap_closed(one["loss"], mine["loss"], told["loss"]).share
        assert share is not None and 0 < share <= 1


def test_a_global_batch_lets_experts_specialise() -> None:
    compare(seeds=1, steps=150)


@pytest.mark.slow
def test_a_global_batch_lets_experts_specialise_on_five_seeds() -> None:
    compare(seeds=5, steps=300)
