import pytest
import torch

from schemas.errors import CuveeError
from stages.train.options.task_arithmetic import linearised, merged, task_vectors


def network(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))


def test_one_source_with_weight_one_is_its_connector() -> None:
    start, one, other = (network(seed).state_dict() for seed in range(3))
    vectors = task_vectors(start, {"a": one, "b": other})
    found = merged(start, vectors, {"a": 1.0, "b": 0.0})
    assert all(torch.allclose(found[name], one[name], atol=1e-7) for name in one)
    assert all(torch.equal(merged(start, vectors, {"a": 0.0, "b": 0.0})[name], start[name]) for name in start)


def test_weights_add_task_vectors() -> None:
    start, one, other = (network(seed).state_dict() for seed in range(3))
    found = merged(start, task_vectors(start, {"b": other, "a": one}), {"b": 0.25, "a": 0.75})
    expected = {
        name: start[name] + 0.75 * (one[name] - start[name]) + 0.25 * (other[name] - start[name]) for name in one
    }
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in one)


def test_other_sources_and_other_tensors_are_refused() -> None:
    start = network(0).state_dict()
    vectors = task_vectors(start, {"a": network(1).state_dict()})
    with pytest.raises(CuveeError, match=r"weights of \['b'\], expected those of \['a'\]"):
        merged(start, vectors, {"b": 1.0})
    with pytest.raises(CuveeError, match="'a' holds other tensors"):
        task_vectors(start, {"a": torch.nn.Linear(3, 4).state_dict()})


def test_linearised_is_the_tangent_and_additive() -> None:
    module = network(0)
    start = {name: value.detach().double() for name, value in module.double().state_dict().items()}
    one, other = (
        {name: value.double() - start[name] for name, value in network(seed).state_dict().items()} for seed in (1, 2)
    )
    x = torch.randn(5, 3, dtype=torch.float64)
    said = module(x)
    step = 1e-6
    near = torch.func.functional_call(module, {name: start[name] + step * one[name] for name in start}, (x,))
    change = linearised(module, start, one)(x) - said
    assert torch.allclose(change, (near - said) / step, atol=1e-4)
    both = linearised(module, start, {name: one[name] + other[name] for name in start})(x) - said
    assert torch.allclose(both, change + linearised(module, start, other)(x) - said)


def test_of_a_linear_module_the_tangent_is_the_module() -> None:
    module = torch.nn.Linear(3, 2).double()
    start = module.state_dict()
    vector = {name: torch.randn_like(value) for name, value in start.items()}
    x = torch.randn(4, 3, dtype=torch.float64)
    moved = torch.func.functional_call(module, {name: start[name] + vector[name] for name in start}, (x,))
    assert torch.allclose(linearised(module, start, vector)(x), moved)
