"""StableAdamW (Wortsman et al., arXiv:2304.13013): AdamW whose rate is divided by how much a gradient surprises it.

Per tensor, with gradient g, moments m and v, and m^ = m / (1 - b1^t), v^ = v / (1 - b2^t):

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
    RMS = sqrt(mean(g^2 / max(v^, eps^2)))        rate_t = rate / max(1, RMS)
    w <- w - rate_t (m^ / (sqrt(v^) + eps) + decay w)

It takes the place of gradient clipping: a loss spike follows where v under-estimates g^2, that is where RMS >> 1. The
corrected v^ stands inside RMS as well (the same as correcting the betas): with v, step 1 would have 1 / sqrt(1 - b2).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

EPSILON = 1e-8


def stable_adamw(
    parameters: "Iterable[torch.nn.Parameter]",
    rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
    decay: float = 0.0,
    epsilon: float = EPSILON,
) -> "torch.optim.Optimizer":
    """An optimizer whose state has the names of torch's AdamW, and `rms` beside them: the last step's, per tensor."""
    import torch

    class StableAdamW(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        _step(parameter, parameter.grad, self.state[parameter], group)

    return StableAdamW(parameters, {"lr": rate, "betas": betas, "weight_decay": decay, "eps": epsilon})


def _step(parameter: "torch.Tensor", gradient: "torch.Tensor", state: dict[str, Any], group: dict[str, Any]) -> None:
    import torch

    if not state:
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        state.update({"step": torch.tensor(0.0), **moments})
    (beta1, beta2), epsilon = group["betas"], group["eps"]
    state["step"] += 1
    count, mean, square = float(state["step"]), state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    corrected = square / (1 - beta2**count)
    state["rms"] = rms = (gradient.square() / corrected.clamp(min=epsilon**2)).mean().sqrt()
    # The rate stays on the device: reading it here would wait for it once per tensor.
    now = group["lr"] / rms.clamp(min=1)
    parameter.mul_(1 - now * group["weight_decay"])
    direction = mean / corrected.sqrt().add_(epsilon)
    parameter.sub_(direction * (now / (1 - beta1**count)))
