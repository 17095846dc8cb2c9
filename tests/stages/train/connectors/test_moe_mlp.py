"""Routing and the balance loss, against formulas written out."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError
from stages.train.connectors.contract import Grid, connector_of
from stages.train.connectors.moe_mlp.balance_network import LoadBalance
from stages.train.connectors.moe_mlp.network import Experts, hashed

VISION, LANGUAGE, GRID = 8, 6, Grid(2, 2)


def build(**changed: Any) -> Experts:
    module = connector_of({"kind": "moe_mlp", "hidden": 5, **changed}).build(VISION, LANGUAGE, 1, GRID)
    assert isinstance(module, Experts)
    return module


def features(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, GRID.cells, VISION, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("route", ["token", "image"])
def test_tokens_are_the_chosen_experts_answers_weighed(top_k: int, route: str) -> None:
    module, given = build(experts=3, top_k=top_k, route=route), features(4)
    assert module.router is not None
    tokens = module(given)
    seen = given.mean(dim=1, keepdim=True).expand_as(given) if route == "image" else given
    scores = torch.softmax(module.router(seen), dim=-1)
    for row in range(4):
        for place in range(GRID.cells):
            best = scores[row, place].argsort(descending=True)[:top_k]
            wanted = sum(scores[row, place, e] * module.experts[int(e)](given[row, place]) for e in best)
            assert torch.allclose(tokens[row, place], wanted, atol=1e-6)  # type: ignore[arg-type]
    assert module.routes is not None and module.routes.shape == (4, GRID.cells if route == "token" else 1, top_k)


def test_routers_to_compare_with() -> None:
    given = features(6)
    sources = torch.tensor([0, 1, 1, 0, 1, 0])
    reference = build(router="reference", sources=["a", "b"], experts=4, top_k=2)
    tokens = reference(given, sources)
    assert reference.routes is not None and reference.penalty is None
    assert reference.routes[:, 0].tolist() == [[2 * s, 2 * s + 1] for s in sources.tolist()]
    wanted = (reference.experts[2](given[1]) + reference.experts[3](given[1])) / 2
    assert torch.allclose(tokens[1], wanted, atol=1e-6)
    for unknown in (None, torch.tensor([0, 1, -1, 0, 0, 0])):
        with pytest.raises(ContractError, match="source of every image"):
            reference(given, unknown)
    dense = build(router="dense", top_k=2)
    assert len(dense.experts) == 1 and dense.experts[0][0].out_features == 10  # type: ignore[index]
    assert torch.allclose(dense(given), dense.experts[0](given), atol=1e-6)
    chance = build(router="random")
    assert torch.equal(chance(given), chance(given)) and chance.router is None


def test_a_hash_is_even_and_names_different_experts() -> None:
    given = features(2000)
    for experts in (2, 3, 4):
        for by_image in (False, True):
            found = hashed(given, experts, 2, by_image)
            assert (found[..., 0] != found[..., 1]).all() and found.min() >= 0 and found.max() < experts
            for place in range(2):
                shares = found[..., place].flatten().bincount(minlength=experts) / found[..., place].numel()
                assert shares.min() > 0.8 / experts
    assert torch.equal(hashed(given[:5], 4, 1, False), hashed(given, 4, 1, False)[:5])


@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 5), st.integers(1, 2), st.integers(0, 99))
def test_the_balance_loss_is_its_formula(rows: int, places: int, experts: int, top_k: int, seed: int) -> None:
    scores = torch.randn(rows, places, experts, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)
    chosen = scores.topk(top_k, dim=-1).indices

    def written_out(mine: torch.Tensor, of: torch.Tensor) -> float:
        shares = [(mine == e).float().mean() for e in range(experts)]
        return float(experts * sum(f * p for f, p in zip(shares, of.reshape(-1, experts).mean(dim=0), strict=True)))

    whole = LoadBalance("micro_batch")(chosen, scores)
    assert whole is not None and float(whole) == pytest.approx(written_out(chosen, scores), rel=1e-5)
    each = LoadBalance("sequence")(chosen, scores)
    apart = [written_out(chosen[i], scores[i]) for i in range(rows)]
    assert each is not None and float(each) == pytest.approx(sum(apart) / rows, rel=1e-5)
    assert LoadBalance("none")(chosen, scores) is None


def test_even_routing_costs_one_and_a_collapse_as_many_as_experts() -> None:
    loss = LoadBalance("micro_batch")
    even = torch.full((2, 4, 4), 0.25)
    assert float(loss(torch.arange(8).view(2, 4, 1) % 4, even)) == 1.0  # type: ignore[arg-type]
    collapsed = torch.zeros(2, 4, 4)
    collapsed[..., 2] = 1.0
    assert float(loss(torch.full((2, 4, 1), 2), collapsed)) == 4.0  # type: ignore[arg-type]


def test_a_global_batch_spans_the_forwards_of_a_step() -> None:
    scores = features(6).abs()[..., :4].softmax(dim=-1)
    chosen = scores.argmax(dim=-1, keepdim=True)
    parts, whole = LoadBalance("global_batch"), LoadBalance("micro_batch")
    alone = parts(chosen[:2], scores[:2])
    assert alone is not None and alone == whole(chosen[:2], scores[:2]), "without a step, a forward is a batch"
    for _ in range(2):
        parts.begin_step()
        for first in (0, 2, 4):
            last = parts(chosen[first : first + 2], scores[first : first + 2])
    counts = chosen.flatten().bincount(minlength=4)
    assert parts.counts is not None and parts.counts.tolist() == counts.tolist()
    two = LoadBalance("global_batch")
    two.sum_over_ranks = lambda mine: mine + chosen[2:].flatten().bincount(minlength=4)
    assert torch.allclose(two(chosen[:2], scores[:2]), 4 * (counts / counts.sum() * scores[:2].mean(dim=(0, 1))).sum())
    wanted = 4 * (counts / counts.sum() * scores[4:].mean(dim=(0, 1))).sum()
    assert last is not None and torch.allclose(last, wanted)


def test_the_penalty_stands_only_where_a_router_learns() -> None:
    module = build(balance=0.5, scope="micro_batch")
    module(features(3))
    assert module.penalty is not None and module.penalty.requires_grad and 0.4 < module.penalty.item() < 2.1
    with torch.no_grad():
        module(features(3))
    assert module.penalty is None
    module.eval()(features(3))
    assert module.penalty is None
    silent = build(scope="none")
    silent(features(3))
    assert silent.penalty is None
    module.train()(features(0))
    assert module.penalty is not None and module.penalty.item() == 0.0


def test_an_expert_that_nothing_chose_gets_a_gradient_of_zero() -> None:
    module = build(router="reference", sources=["a", "b"], experts=2)
    torch.autograd.backward(module(features(2), torch.zeros(2, dtype=torch.long)).sum())
    assert all(value.grad is not None and not value.grad.any() for value in module.experts[1].parameters())
    assert all(value.grad is not None and value.grad.any() for value in module.experts[0].parameters())


def test_another_expert_may_answer_for_a_while() -> None:
    module, given = build(router="reference", sources=["a", "b"], experts=2), features(3)
    first, second = (module(given, torch.full((3,), source)) for source in (0, 1))
    with module.replacing({0: 1}):
        assert torch.equal(module(given, torch.zeros(3, dtype=torch.long)), second)
        assert torch.equal(module(given, torch.ones(3, dtype=torch.long)), second)
    assert torch.equal(module(given, torch.zeros(3, dtype=torch.long)), first)
