"""The gradient of one step, from any number of forward passes on any number of ranks.

The loss is sum_l w_l x_l / sum_l w_l over the label tokens of the whole batch, wherever they are computed: gradients of
the sums are added up first and divided once, so that neither micro batches nor ranks change what is descended.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.train.batches import Batches, Counts
from stages.train.ranks import Ranks

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

Doubles = npt.NDArray[np.float64]
Drawn = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Passed:
    """What a batch gave, over all micro batches and ranks."""

    loss: float
    """What is descended, in nats per label token."""
    weight: float
    """Of all label tokens."""
    each: Doubles
    """(n,) summed loss of each sample."""
    labels: Doubles
    """(n,) label tokens of each sample."""
    counts: Counts
    """Places of the forward passes."""
    norm: float
    """Of the gradient."""

    @property
    def mean_each(self) -> Doubles:
        """(n,) mean loss of each sample."""
        return self.each / np.maximum(self.labels, 1)


@dataclass
class _Sums:
    """Added up on the device, so that a step waits for it once."""

    head: "torch.Tensor"
    """(7,) weighted loss, weight, penalty; visual, text, label and padding places."""
    each: "torch.Tensor"
    """(2, n) summed loss and label tokens of each sample."""
    penalties: "list[torch.Tensor] | None" = None
    """Gradients of the penalty."""


@dataclass(frozen=True)
class Accumulation:
    """How a step's gradient comes about."""

    ranks: Ranks = field(default_factory=Ranks)
    micro: int | None = None
    """Samples of a forward pass."""
    numerics: Callable[[], AbstractContextManager[object]] = nullcontext
    """Around the forward pass."""

    def gradient(self, sources: Batches, bridge: "Bridge", drawn: Drawn) -> Passed:
        """Fill the `grad` of everything trained with the gradient of a batch's loss.

        Args:
            sources: what the batch is drawn from.
            bridge: what is trained.
            drawn: the batch, the same on every rank.

        Raises:
            CuveeError: a loss or a gradient that is not finite, with the samples at fault.
        """
        import torch

        parameters = [parameter for parameter in bridge.parameters() if parameter.requires_grad]
        device = parameters[0].device
        for part in bridge.modules():
            if hasattr(part, "begin_step"):  # what counts over a whole batch, like a router's balance
                cast(Any, part).begin_step()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        empty = torch.zeros(7 + 2 * len(drawn), dtype=torch.float64, device=device)
        sums = _Sums(empty[:7], empty[7:].view(2, -1))
        for places in self._passes(len(drawn)):
            self._pass(sources, bridge, drawn, places, parameters, sums)
        return self._divided(sources, drawn, parameters, sums)

    def _passes(self, samples: int) -> Iterator[Sequence[int]]:
        mine = self.ranks.share(range(samples))
        size = self.micro or max(1, len(mine))
        return (mine[start : start + size] for start in range(0, len(mine), size))

    def _pass(
        self,
        sources: Batches,
        bridge: "Bridge",
        drawn: Drawn,
        places: Sequence[int],
        parameters: "list[torch.nn.Parameter]",
        sums: _Sums,
    ) -> None:
        """One forward and backward pass over some of the batch's samples."""
        import torch

        with self.numerics():
            losses = sources.losses(bridge, [drawn[place] for place in places])
        total, share = (losses.values * losses.weights).sum(), len(places) / len(drawn)
        if losses.penalty is not None:
            found = torch.autograd.grad(losses.penalty * share, parameters, retain_graph=True, materialize_grads=True)
            before = sums.penalties or [torch.zeros_like(part) for part in found]
            sums.penalties = [one + more for one, more in zip(before, found, strict=True)]
            sums.head[2] += losses.penalty.detach() * share
        if total.requires_grad:  # text alone, behind nothing that is trained, has no gradient
            torch.autograd.backward(total)
        sums.head[:2] += torch.stack([total.detach().double(), losses.weights.sum().double()])
        sums.head[3:] += torch.tensor(losses.counts, dtype=torch.float64, device=sums.head.device)
        where = torch.as_tensor(list(places), device=sums.each.device)[losses.samples]
        sums.each[0].index_add_(0, where, losses.values.detach().double())
        sums.each[1].index_add_(0, where, torch.ones_like(losses.values, dtype=torch.float64))

    def _divided(self, sources: Batches, drawn: Drawn, parameters: "list[torch.nn.Parameter]", sums: _Sums) -> Passed:
        import torch

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        numbers = self.ranks.sum(torch.cat([sums.head, sums.each.flatten()]))
        _sum_over(self.ranks, gradients)
        weight = numbers[1].clamp(min=torch.finfo(torch.float32).tiny)
        for gradient in gradients:
            gradient.div_(weight.to(gradient.dtype))
        if sums.penalties is not None:
            _sum_over(self.ranks, sums.penalties)
            for gradient, part in zip(gradients, sums.penalties, strict=True):
                gradient.add_(part)
        norm = torch.stack([gradient.double().norm() for gradient in gradients]).norm()
        head, each = torch.cat([numbers, norm[None]]).tolist(), numbers[7:].view(2, -1).cpu().numpy()
        loss = head[0] / max(head[1], 1e-300) + head[2]
        passed = Passed(loss, head[1], each[0], each[1], Counts(*map(int, head[3:7])), head[-1])
        _refuse_infinite(passed, sources, drawn)
        return passed


def _sum_over(ranks: Ranks, tensors: "Sequence[torch.Tensor]") -> None:
    """All of them in one exchange, in place."""
    import torch

    if ranks.count == 1:
        return
    flat = ranks.sum(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _refuse_infinite(passed: Passed, sources: Batches, drawn: Drawn) -> None:
    if math.isfinite(passed.loss) and math.isfinite(passed.norm):
        return
    blamed = [drawn[i] for i in np.flatnonzero(~np.isfinite(passed.each)).tolist()] or list(drawn)
    names = [f"{facts['key']} ({facts['shard']})" if facts["shard"] else facts["key"] for facts in sources.told(blamed)]
    what = f"the loss is {passed.loss}" if not math.isfinite(passed.loss) else f"the gradient has norm {passed.norm}"
    raise CuveeError(f"{what}; lower `learning_rate` or look at samples {', '.join(names[:16])}")
