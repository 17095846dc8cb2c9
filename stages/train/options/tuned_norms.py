"""Tuning the normalisations of a frozen model: LayerNorm as the key component of fine-tuning (arXiv:2403.20284).

Output LayerNorm changes most when a model is fine-tuned, and tuning LayerNorm alone comes near to tuning all; so the
gains (and shifts) of every normalisation are trained, 0.27 M numbers of a model of 7 B. A Fisher-selected subset is
enough: `stages.train.options.fisher_norms`. The trained values stand in the bridge and take the model's places during
a forward pass; they start from the model's own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from schemas.errors import ContractError
from stages.train.options.option import Option, model_path, part, tensor_name

if TYPE_CHECKING:
    import torch


class TunedNorms(Option):
    """All normalisations of the language model, or of the image tower."""

    name: ClassVar[str] = "norms"

    of: Literal["llm", "vision"] = "llm"

    def start(self, model: "torch.nn.Module") -> "torch.nn.Module":
        """The part, with the model's own values."""
        return part(self, {tensor_name(path): value for path, value in norm_parameters(model).items()})

    @contextmanager
    def inside(self, part: Any, model: "torch.nn.Module", visual: "torch.Tensor | None") -> Iterator[None]:
        """Put the trained values in the places of the model's."""
        mine = {model_path(name): value for name, value in part.named_parameters()}
        with in_place_of(model, mine):
            yield


def norm_parameters(model: "torch.nn.Module") -> "dict[str, torch.nn.Parameter]":
    """Gains and shifts of every normalisation of a model, by path.

    Raises:
        ContractError: the model has none.
    """
    import torch

    found = {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("Norm")
        for name, value in module.named_parameters(recurse=False)
    }
    if not found:
        raise ContractError(f"{type(model).__name__} has no normalisation with gains")
    return found


@contextmanager
def in_place_of(model: "torch.nn.Module", values: "Mapping[str, torch.Tensor]") -> Iterator[None]:
    """Let tensors stand in the places of a model's parameters, by path; the model's own come back, the same objects."""
    owners = {path: model.get_submodule(path.rpartition(".")[0]) for path in values}
    own = {path: owners[path]._parameters[path.rpartition(".")[2]] for path in values}
    try:
        for path, value in values.items():
            _put(owners[path], path.rpartition(".")[2], value.to(own[path].dtype))  # type: ignore[union-attr]
        yield
    finally:
        for path in own:
            _put(owners[path], path.rpartition(".")[2], own[path])


def _put(module: "torch.nn.Module", name: str, value: Any) -> None:
    # Not by attribute: what is put there may be the result of a computation, which is no Parameter.
    module._parameters[name] = value
