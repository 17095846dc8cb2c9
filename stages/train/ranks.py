"""Several processes that share one run: each takes its part of every batch, and sums go over all of them.

Only the connector's gradients are exchanged, in one all-reduce a step. The connector stands before the language model,
so its gradients come last in the backward pass: there is nothing left that an exchange in pieces could hide behind.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; by default it is alone."""

    number: int = 0
    count: int = 1
    group: Any = None
    """torch.distributed's process group."""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item, from its own on."""
        return items[self.number :: self.count]

    def sum(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """The sum over all ranks, in place, without a gradient."""
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self.group)
        return tensor

    @contextlib.contextmanager
    def shared(self, module: "torch.nn.Module") -> Iterator[None]:
        """While all ranks train: parts of a module that have a `sum_over_ranks` are given the sum."""
        asking = [part for part in module.modules() if self.count > 1 and hasattr(part, "sum_over_ranks")]
        before = [vars(part)["sum_over_ranks"] for part in asking]
        for part in asking:
            vars(part)["sum_over_ranks"] = lambda tensor: self.sum(tensor.detach().clone())
        try:
            yield
        finally:
            for part, alone in zip(asking, before, strict=True):
                vars(part)["sum_over_ranks"] = alone

    def from_first(self, value: T) -> T:
        """The first rank's value."""
        return self.all(value)[0] if self.count > 1 else value

    def all(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found


ALONE = Ranks()
