"""Against torch-optimi's reference path and torch's own AdamW."""

from collections.abc import Callable, Iterator

import optimi
import pytest
import torch

from stages.train.optimizers.choice import optimizer_of
from stages.train.optimizers.stable_adamw import stable_adamw
from stages.train.settings import TrainSettings

Parameters = list[torch.nn.Parameter]
SHAPES = ((7, 5), (5,), (3, 4, 2))


def parameters() -> Parameters:
    noise = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=noise)) for shape in SHAPES]


def gradients(steps: int, spikes: tuple[int, ...] = ()) -> Iterator[list[torch.Tensor]]:
    noise = torch.Generator().manual_seed(1)
    for step in range(steps):
        size = 30.0 if step in spikes else 1.0
        yield [size * torch.randn(shape, generator=noise) for shape in SHAPES]


def go(optimizer: torch.optim.Optimizer, mine: Parameters, steps: int, spikes: tuple[int, ...] = ()) -> list[float]:
    surprise = []
    for step, given in enumerate(gradients(steps, spikes)):
        for parameter, gradient in zip(mine, given, strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.step()
        surprise.append(max((float(state["rms"]) for state in optimizer.state.values() if "rms" in state), default=0))
    return surprise


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.99)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_optimi_to_rounding(betas: tuple[float, float], decay: float) -> None:
    mine, theirs = parameters(), parameters()
    reference = optimi.StableAdamW(theirs, lr=1e-2, betas=betas, weight_decay=decay, eps=1e-8, foreach=False)
    surprise = go(stable_adamw(mine, 1e-2, betas, decay), mine, 100, spikes=(20, 60))
    go(reference, theirs, 100, spikes=(20, 60))
    assert max(surprise) > 2.3, "the rate was clipped on the way"
    for one, other in zip(mine, theirs, strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-6


def test_it_is_adamw_while_nothing_surprises() -> None:
    """Gradients that shrink: RMS stays at or below 1, since v remembers larger ones."""
    mine, theirs = parameters(), parameters()
    stable = stable_adamw(mine, 1e-2, (0.9, 0.95), 0.1)
    plain = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(40):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = other.grad = torch.full_like(one, 0.9**step)
        stable.step()
        plain.step()
        assert all(float(state["rms"]) <= 1 + 1e-6 for state in stable.state.values())
    for one, other in zip(mine, theirs, strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-6


def test_the_first_step_is_no_surprise_and_a_saved_state_goes_on() -> None:
    mine, other = parameters(), parameters()
    whole, halves = stable_adamw(mine, 1e-2), stable_adamw(other, 1e-2)
    assert go(whole, mine, 1)[0] == pytest.approx(1.0, abs=1e-6), "v^ of step 1 is g^2 itself"
    go(halves, other, 1)
    resumed = stable_adamw(other, 1e-2)
    resumed.load_state_dict(halves.state_dict())
    go(whole, mine, 5)
    go(resumed, other, 5)
    assert all(torch.equal(one, two) for one, two in zip(mine, other, strict=True))


def test_settings_choose_it(settings: Callable[..., TrainSettings]) -> None:
    assert type(optimizer_of(settings(), parameters())) is torch.optim.AdamW
    made = optimizer_of(settings(optimizer="stable_adamw", betas=[0.8, 0.9], weight_decay=0.2), parameters())
    assert type(made).__name__ == "StableAdamW"
    assert made.defaults == {"lr": 3e-3, "betas": (0.8, 0.9), "weight_decay": 0.2, "eps": 1e-8}
    with pytest.raises(ValueError, match="betas"):
        settings(betas=[0.9, 1.0])
