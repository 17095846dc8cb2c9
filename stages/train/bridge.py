"""Everything that is trained between the frozen models: the connector, and the trained parts of options beside it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

Placement = Literal["insert", "replace"]


@dataclass(frozen=True)
class Shown:
    """What the language model sees of some images."""

    tokens: torch.Tensor
    """(n, v, width) fp32."""
    layer: int = 0
    """Layer of the language model at whose input the tokens stand; 0: among the input embeddings."""
    placement: Placement = "insert"
    """`replace`: the last tokens are one place's value at the inputs of the last layers (eP-ALM, arXiv:2303.11403)."""
    soft: int = 0
    """Under `replace`, how many tokens stand before that place as any others do."""

    @property
    def places(self) -> int:
        """Places that an image takes up in a sequence."""
        count = int(self.tokens.shape[1])
        return count if self.placement == "insert" else self.soft + min(1, count - self.soft)


class Bridge(nn.Module):
    """A connector and options' parts: `parameters()` is all that is trained, `state_dict()` all that is kept."""

    def __init__(
        self,
        connector: nn.Module,
        parts: Mapping[str, nn.Module] | None = None,
        *,
        layer: int = 0,
        placement: Placement = "insert",
        soft: int = 0,
        reads_prompt: bool = False,
    ) -> None:
        """Put together what was built.

        Args:
            connector: features (n, v, vision width) to tokens (n, tokens, language width).
            parts: options' modules by the option's name; `part.inside(model, places)` is a context in which the part
                acts inside the language model.
            layer: where tokens go in.
            placement: how they stand there.
            soft: see `Shown`.
            reads_prompt: whether the connector is also given the states of the text before the caption.
        """
        super().__init__()
        self.connector, self.parts = connector, nn.ModuleDict(dict(parts or {}))
        self.layer, self.placement, self.soft, self.reads_prompt = layer, placement, soft, reads_prompt

    def show(
        self,
        features: torch.Tensor,
        prompt: tuple[torch.Tensor, torch.Tensor] | None = None,
        levels: torch.Tensor | None = None,
    ) -> Shown:
        """What features (n, v, vision width) become.

        Args:
            features: of the images.
            prompt: states (n, p, width) of the text before the caption, and which of them are there (n, p); for a
                connector that reads them.
            levels: (n,) alignment level per image, for an option that has such; None: the highest.
        """
        tokens: torch.Tensor = self.connector(features) if prompt is None else self.connector(features, *prompt)
        if "levels" in self.parts:
            tokens = cast(Any, self.parts["levels"]).before(tokens, levels)
        return Shown(tokens, self.layer, self.placement, self.soft)

    @property
    def penalty(self) -> torch.Tensor | None:
        """What the connector's last forward pass adds to the mean loss, if anything."""
        return getattr(self.connector, "penalty", None)

    @contextlib.contextmanager
    def inside(self, model: Any, places: torch.Tensor | None) -> Iterator[None]:
        """A context in which every part acts inside a language model.

        Args:
            model: the transformers model.
            places: (R, T) bool, where visual tokens stand in the layers that see them; None: nowhere.
        """
        with contextlib.ExitStack() as stack:
            for part in self.parts.values():
                if hasattr(part, "inside"):
                    stack.enter_context(cast(Any, part).inside(model, places))
            yield
