"""Normalisations by Fisher information (arXiv:2403.20284): only the entries that the data say most about are trained.

The diagonal of the Fisher information of a gain or shift theta_i, over samples (x, y) of the training data,

    F_i = E[ (d log p(y | x) / d theta_i)^2 ],

one gradient a sample, squared, in double precision. The `entries` largest are trained; ties go to the entry that comes
first in the model. The rest keeps the model's values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from stages.train.options.option import Option, part
from stages.train.options.tuned_norms import in_place_of, norm_parameters

if TYPE_CHECKING:
    import torch


class FisherNorms(Option):
    """Some entries of the language model's gains and shifts."""

    name: ClassVar[str] = "norms"
    fixed: ClassVar[tuple[str, ...]] = ("chosen",)

    entries: int = Field(1024, gt=0)
    """How many are trained."""
    samples: int = Field(64, gt=0)
    """Training samples whose gradients choose them."""

    def start(self, model: "torch.nn.Module", fisher: "torch.Tensor | None" = None) -> "torch.nn.Module":
        """The part, with the model's own values of the chosen entries.

        Args:
            model: the language model.
            fisher: (P,) from `fisher_information`; None: a part whose choice and values are loaded.
        """
        import torch

        own = torch.cat([value.detach().flatten() for value in norm_parameters(model).values()])
        count = min(self.entries, len(own))
        chosen = torch.arange(count) if fisher is None else largest(fisher, count)
        return part(self, {"values": own.cpu()[chosen], "chosen": chosen})

    @contextmanager
    def inside(self, part: Any, model: "torch.nn.Module", visual: "torch.Tensor | None") -> Iterator[None]:
        """Put the model's values with the trained entries among them in the places of the model's."""
        import torch

        own = norm_parameters(model)
        flat = torch.cat([value.detach().flatten().float() for value in own.values()])
        # With hooks of its own, so that a recomputed layer does not count what is saved here as its own.
        with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
            whole = flat.index_put((part.chosen,), part.values)
        mixed = torch.split(whole, [value.numel() for value in own.values()])
        shaped = {path: piece.view_as(value) for (path, value), piece in zip(own.items(), mixed, strict=True)}
        with in_place_of(model, shaped):
            yield


def largest(fisher: "torch.Tensor", count: int) -> "torch.Tensor":
    """(count,) places of the largest values, in rising order; of equal values the first."""
    import torch

    return torch.argsort(fisher, descending=True, stable=True)[:count].sort().values


def fisher_information(
    model: "torch.nn.Module", log_likelihood: "Callable[[Any], torch.Tensor]", samples: Sequence[Any]
) -> "torch.Tensor":
    """(P,) diagonal Fisher information of a model's gains and shifts, on the CPU in double precision.

    Args:
        model: the frozen language model; its parameters are left alone.
        log_likelihood: the summed log-likelihood of one sample's labels, through the model's forward pass.
        samples: what it is called with, one after another.
    """
    import torch

    copies = {path: value.detach().clone().requires_grad_() for path, value in norm_parameters(model).items()}
    total = torch.zeros(sum(value.numel() for value in copies.values()), dtype=torch.float64)
    for sample in samples:
        with in_place_of(model, copies), torch.enable_grad():
            gradients = torch.autograd.grad(log_likelihood(sample), list(copies.values()))
        total += torch.cat([gradient.detach().flatten() for gradient in gradients]).double().cpu().square()
    return total / max(1, len(samples))
