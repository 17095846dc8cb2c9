"""Averaged weights: the mean of the last checkpoints (arXiv:1803.05407; LAWA, arXiv:2209.14981), or of all, forgetting.

`last: k, every: n` is the plain mean of the newest k states among those after every n-th step and the last step.
`ema: d` is sum_t (1 - d) d^(T - t) theta_t over all steps, divided by its weights' sum 1 - d^T, so that a short run is
not drawn to its start. Training itself does not see the average: it is what a run ends with. Sums are in double
precision and in the order of the steps; what is no float (choices, counts) is taken from the last state.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


class Average(BaseModel):
    """Which states are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: int | None = Field(None, ge=2)
    """States."""
    every: int | None = Field(None, ge=1)
    """Steps between them."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Share of the average that stays in a step."""

    @model_validator(mode="after")
    def _one_form(self) -> "Average":
        if (self.ema is None) == (self.last is None) or (self.last is None) != (self.every is None):
            raise ValueError("name either `last` and `every` (the mean of the last states) or `ema`")
        return self

    def start(self) -> "Averaged":
        """Nothing averaged yet."""
        return Averaged(self)


class Averaged:
    """The states that count so far; `tensors` is all there is to go on from."""

    def __init__(self, settings: Average) -> None:
        self.settings = settings
        self.tensors: Tensors = {}

    def after(self, module: "torch.nn.Module", step: int, *, final: bool = False) -> None:
        """Take note of the weights after `step` steps."""
        if self.settings.ema is not None:
            self._forget(module, self.settings.ema)
        elif self.settings.every is not None and (final or step % self.settings.every == 0):
            self._keep(module, step)

    def mean(self, module: "torch.nn.Module") -> Tensors:
        """The averaged state; that of the module where nothing has been averaged."""
        now, found = module.state_dict(), self._mean()
        return {name: found[name].to(value) if name in found else value.clone() for name, value in now.items()}

    @property
    def _steps(self) -> list[int]:
        return sorted({int(name.split("/", 1)[0]) for name in self.tensors if not name.startswith("ema")})

    def _keep(self, module: "torch.nn.Module", step: int) -> None:
        self.tensors |= {f"{step}/{name}": value.clone() for name, value in floats(module).items()}
        outdated = tuple(f"{old}/" for old in self._steps[: -(self.settings.last or 1)])
        self.tensors = {name: value for name, value in self.tensors.items() if not name.startswith(outdated)}

    def _forget(self, module: "torch.nn.Module", stays: float) -> None:
        import torch

        weight = self.tensors.get("ema weight", torch.zeros((), dtype=torch.float64))
        self.tensors["ema weight"] = stays * weight + (1 - stays)
        for name, value in floats(module).items():
            before = self.tensors.get(f"ema/{name}")
            share = (1 - stays) * value.double()
            self.tensors[f"ema/{name}"] = share if before is None else stays * before.to(share) + share

    def _mean(self) -> Tensors:
        if self.settings.ema is not None:
            weight = self.tensors.get("ema weight")
            sums = {name[4:]: value for name, value in self.tensors.items() if name.startswith("ema/")}
            return {name: value / weight.to(value) for name, value in sums.items()} if weight is not None else {}
        return mean_of([self._state(step) for step in self._steps])

    def _state(self, step: int) -> Tensors:
        prefix = f"{step}/"
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}


def floats(module: "torch.nn.Module") -> Tensors:
    """The tensors of a module's state that can be averaged."""
    return {name: value.detach() for name, value in module.state_dict().items() if value.is_floating_point()}


def mean_of(states: "list[Mapping[str, torch.Tensor]]") -> Tensors:
    """The mean of states with equal names, in double precision."""
    import torch

    names = states[0] if states else {}
    return {name: torch.stack([state[name].double() for state in states]).mean(dim=0) for name in names}
