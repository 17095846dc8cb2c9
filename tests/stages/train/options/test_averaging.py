import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.train.options.averaging import Average


def network(values: list[float]) -> torch.nn.Module:
    made = torch.nn.Linear(2, 1)
    with torch.no_grad():
        made.weight[:] = torch.tensor(values[:2])
        made.bias[:] = values[2]
    made.register_buffer("chosen", torch.tensor([3]))
    return made


STEPS = st.lists(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), min_size=1, max_size=12)


def average(settings: Average, states: list[list[float]], killed: int = -1) -> dict[str, torch.Tensor]:
    kept = settings.start()
    for step, values in enumerate(states, start=1):
        if step == killed:  # what a checkpoint holds is all there is
            tensors, kept = kept.tensors, settings.start()
            kept.tensors = dict(tensors)
        kept.after(network(values), step, final=step == len(states))
    return kept.mean(network(states[-1]))


@given(STEPS, st.integers(2, 4), st.integers(1, 4))
def test_the_last_states(states: list[list[float]], last: int, every: int) -> None:
    found = average(Average(last=last, every=every), states)
    chosen = [values for step, values in enumerate(states, start=1) if step % every == 0 or step == len(states)][-last:]
    expected = torch.tensor(chosen, dtype=torch.float64).mean(dim=0).float()
    assert torch.equal(torch.cat([found["weight"][0], found["bias"]]), expected)
    assert found["chosen"].tolist() == [3]


@given(STEPS, st.floats(0.1, 0.99))
def test_forgetting(states: list[list[float]], stays: float) -> None:
    found = average(Average(ema=stays), states)
    weights = torch.tensor([stays**age for age in range(len(states))][::-1], dtype=torch.float64)
    expected = (weights[:, None] * torch.tensor(states, dtype=torch.float64)).sum(dim=0) / weights.sum()
    assert torch.allclose(torch.cat([found["weight"][0], found["bias"]]).double(), expected, atol=1e-5)


@pytest.mark.parametrize("settings", [Average(last=3, every=2), Average(ema=0.7)])
@pytest.mark.parametrize("killed", range(1, 8))
def test_going_on_from_the_tensors_is_exact(settings: Average, killed: int) -> None:
    states = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).tolist()
    whole, resumed = average(settings, states), average(settings, states, killed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_nothing_averaged_is_the_module_itself() -> None:
    module = network([1, 2, 3])
    assert torch.equal(Average(last=2, every=5).start().mean(module)["weight"], module.weight)


@pytest.mark.parametrize("given", [{}, {"last": 3}, {"every": 3}, {"last": 2, "every": 1, "ema": 0.5}, {"ema": 1.0}])
def test_one_form(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Average.model_validate(given)
