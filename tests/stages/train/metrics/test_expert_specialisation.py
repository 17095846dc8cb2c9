"""Routing whose figures can be written down."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError
from stages.train.metrics.expert_specialisation import (
    agreement,
    assignment,
    chance_agreement,
    dead_experts,
    entropy,
    expert_counts,
    gap_closed,
    mean_swap_cost,
    normalised_mutual_information,
    overload,
    specialisation,
    swap_costs,
    utilisation,
)


def table(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def test_choices_are_counted_by_domain() -> None:
    routes = np.array([[[0, 1], [0, 2]], [[1, 1], [1, 0]]])
    assert expert_counts(np.array([1, 0]), routes, (2, 4)).tolist() == [[1, 3, 0, 0], [2, 1, 1, 0]]
    assert expert_counts(np.array([], int), np.zeros((0, 1, 1), int), (1, 2)).tolist() == [[0, 0]]


def test_a_reference_is_one_uniform_is_nothing_and_a_collapse_is_nothing() -> None:
    reference = table([5, 0, 0], [0, 5, 0], [0, 0, 5])
    assert normalised_mutual_information(reference) == pytest.approx(1.0) and agreement(reference) == 1.0
    assert utilisation(reference) == pytest.approx(1.0) and overload(reference) == pytest.approx(1.0)
    even = np.full((3, 3), 7)
    assert normalised_mutual_information(even) == pytest.approx(0.0, abs=1e-12) and agreement(even) == pytest.approx(
        1 / 3
    )
    collapsed = table([5, 0, 0, 0], [9, 0, 0, 0])
    assert normalised_mutual_information(collapsed) == 0.0 and utilisation(collapsed) == 0.0
    assert overload(collapsed) == 4.0 and dead_experts(collapsed) == 3
    assert normalised_mutual_information(table([3, 3])) == 0.0, "one domain"
    assert utilisation(table([3], [4])) == 0.0, "one expert"


def test_two_domains_that_share_experts_by_hand() -> None:
    counts = table([3, 1], [1, 3])
    information = math.log(2) - entropy(np.array([0.75, 0.25]))
    assert normalised_mutual_information(counts) == pytest.approx(information / math.log(2))
    assert agreement(counts) == 0.75
    two_experts_each = table([4, 4, 0, 0], [0, 0, 4, 4])
    assert normalised_mutual_information(two_experts_each) == pytest.approx(1.0), "domains are known from experts"
    assert agreement(two_experts_each) == 0.5
    assert dead_experts(table([97, 1, 2])) == 2 and dead_experts(table([0, 96, 4])) == 1


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_the_assignment_is_the_best_of_all(domains: int, experts: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 9, (domains, experts))
    if domains <= experts:
        tried = permutations(range(experts), domains)
        best = max(sum(counts[d, e] for d, e in enumerate(chosen)) for chosen in tried)
    else:
        best = max(sum(counts[d, e] for e, d in enumerate(chosen)) for chosen in permutations(range(domains), experts))
    assert agreement(counts) == pytest.approx(best / max(1, counts.sum()))
    found = assignment(counts)
    assert len(set(found[found >= 0])) == min(domains, experts) and (found < 0).sum() == max(0, domains - experts)
    assert 0 <= normalised_mutual_information(counts) <= 1 and 0 <= utilisation(counts) <= 1 + 1e-12


def test_chance_is_above_an_even_share_and_subtracted() -> None:
    drawn = np.random.default_rng(0)
    domains, routes = drawn.integers(0, 4, 40), drawn.integers(0, 4, (40, 3, 1))
    chance = chance_agreement(domains, routes, (4, 4), seed=1)
    assert 0.25 < chance < 0.45 and chance == chance_agreement(domains, routes, (4, 4), seed=1)
    found = specialisation(domains, routes, (4, 4), seed=1)
    assert abs(found["agreement_above_chance"]) < 0.1, "what is drawn at random agrees by chance alone"
    told = specialisation(domains, np.repeat(domains[:, None, None], 3, axis=1), (4, 4), seed=1)
    assert told["nmi"] == pytest.approx(1.0) and told["agreement"] == 1.0 and told["agreement_above_chance"] > 0.5


def test_a_gap_that_is_none_is_not_closed() -> None:
    assert gap_closed(2.0, 1.25, 1.0).share == 0.75 and gap_closed(2.0, 2.5, 1.0).share == -0.5
    undefined = gap_closed(1.0, 0.5, 1.0)
    assert undefined.share is None and "reward no specialisation" in str(undefined.why_undefined)


def test_swaps_cost_what_the_other_expert_lacks() -> None:
    losses = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 1.0]])

    def loss(domain: int, stand_ins: dict[int, int]) -> float:
        own = (2, 0)[domain]
        return float(losses[domain, stand_ins.get(own, own)])

    costs = swap_costs([2, 0], loss)
    assert costs.tolist() == [[0.0, -1.0], [-4.0, 0.0]] and mean_swap_cost(costs) == -2.5
    lacking = swap_costs([2, -1], loss)
    assert lacking[0, 0] == 0 and np.isnan(lacking[[0, 1, 1], [1, 0, 1]]).all() and math.isnan(mean_swap_cost(lacking))
    with pytest.raises(ContractError, match="not all different"):
        swap_costs([1, 1], loss)
