"""The contract of what training may add to a connector: settings that say what is trained, and where it acts.

An option is its settings. What it trains is a `part` of the bridge: tensors by name, saved, checkpointed and averaged
with the connector. The frozen language model is shared between runs and stays as it is: a part acts on it inside a
context, around one forward pass (and around its recomputation, where activations are not kept).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]


class Option(BaseModel):
    """One option: its settings are its fields, `name` is what its part is called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """What its part is called."""
    has_part: ClassVar[bool] = True
    """Whether it trains anything of its own."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Tensors of its part that are saved and not trained."""

    def check(self) -> None:
        """Refuse what is not there, before anything is computed.

        Raises:
            RecipeError: what is missing and what to do.
        """

    def record(self) -> dict[str, Any]:
        """Its settings as plain values, files by content."""
        return self.model_dump(mode="json")

    def inside(
        self, part: Any, model: "torch.nn.Module", visual: "torch.Tensor | None"
    ) -> AbstractContextManager[None]:
        """What the part does to the language model during a forward pass.

        Args:
            part: the option's part.
            model: the frozen language model; it is left as it was found.
            visual: (R, T) bool, the places of visual tokens; None where there are none.
        """
        return nullcontext()

    def before(self, part: Any, tokens: "torch.Tensor", levels: "torch.Tensor | None") -> "torch.Tensor":
        """What the language model is shown in place of visual tokens (n, v, d) of images with levels (n,)."""
        return tokens


def part(option: Option, tensors: Tensors) -> "torch.nn.Module":
    """The part of a bridge that holds an option's tensors, each a copy.

    Args:
        option: what the tensors belong to.
        tensors: by name; they are trained, in fp32, but for those that the option calls `fixed`.

    Raises:
        ContractError: a name with a dot, which torch reserves.
    """
    import torch

    if dotted := [name for name in tensors if "." in name]:
        raise ContractError(f"option {option.name!r} calls a tensor {dotted[0]!r}; names have no dots")

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.option, self.entered = option, False
            for name, value in tensors.items():
                copied = value.detach().clone()
                if name in option.fixed:
                    self.register_buffer(name, copied)
                else:
                    self.register_parameter(name, torch.nn.Parameter(copied.float()))

        @contextmanager
        def inside(self, model: torch.nn.Module, visual: torch.Tensor | None = None) -> Iterator[None]:
            if self.entered:  # a layer that is computed again while the first pass is still open
                yield
                return
            self.entered = True
            try:
                with option.inside(self, model, visual):
                    yield
            finally:
                self.entered = False

        def before(self, tokens: torch.Tensor, levels: torch.Tensor | None = None) -> torch.Tensor:
            return option.before(self, tokens, levels)

    return Part()


def tensor_name(path: str) -> str:
    """What the tensor of a module's parameter is called in a part: its path in the model, with `/` for dots."""
    return path.replace(".", "/")


def model_path(name: str) -> str:
    """The path in the model that `tensor_name` was made of."""
    return name.replace("/", ".")
