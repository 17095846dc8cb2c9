"""What every connector shares: built from a card, saved with it, and refused between other models than its own."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from schemas.errors import CuveeError
from stages.train.connectors.contract import Connector, Grid, connector_of
from stages.train.options.parts import restored_parts
from stages.train.templates import Plain, Wording

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

WEIGHTS, CARD = "connector.safetensors", "connector.json"


class ConnectorCard(BaseModel):
    """Everything needed to rebuild a connector and to tell where it belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connector: Annotated[SerializeAsAny[Connector], BeforeValidator(connector_of)]
    """Its settings, every width named."""
    vision_width: int
    language_width: int
    visual_tokens: int
    """Most visual features per image it was trained on."""
    grid: Grid
    """How the features of an image stood."""
    vision: str
    """Identity of the image tower."""
    vision_layer: int = -1
    """Its layer whose patches are read, from the last one back."""
    language_model: str
    """Identity of the language model."""
    inject_layer: int = 0
    """Layer of the language model at whose input its tokens go in; 0: as input embeddings."""
    template: Wording = Plain()
    """What stood around image and caption in evaluation."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What else was trained with it, and how, by name."""
    init_seed: int

    @model_validator(mode="before")
    @classmethod
    def _before_there_were_kinds(cls, facts: Any) -> Any:
        """Cards once held an MLP's width beside its name, and a square grid was all there was to tell."""
        if not isinstance(facts, dict) or "hidden" not in facts:
            return facts
        hidden, name = facts["hidden"], facts.get("connector", "mlp")
        others = {key: value for key, value in facts.items() if key != "hidden"}
        return {"grid": (1, facts["visual_tokens"]), **others, "connector": {"kind": name, "hidden": hidden}}

    def build(self) -> "torch.nn.Module":
        """A connector with its initial weights, in fp32 on the CPU."""
        return self.connector.build(self.vision_width, self.language_width, self.init_seed, self.grid)

    def bridge(self, parts: "Mapping[str, torch.nn.Module] | None" = None) -> "Bridge":
        """The same between the frozen models, with options' parts beside it."""
        from stages.train.bridge import Bridge

        kind = self.connector
        return Bridge(
            self.build(),
            parts,
            layer=self.inject_layer,
            placement=kind.placement,
            soft=kind.soft,
            reads_prompt=kind.reads_prompt,
        )

    @property
    def places(self) -> int:
        """Places that an image takes up in a sequence."""
        return ("levels" in self.options) + self.connector.places(self.grid)

    def refuse_other(self, other: "ConnectorCard", where: Path) -> None:
        """Compare with the card of saved weights.

        Raises:
            CuveeError: another tower, language model, layer, option, width or start, with both values.
        """
        mine, theirs = self.model_dump(), other.model_dump()
        for name in (name for name in mine if mine[name] != theirs[name]):
            raise CuveeError(
                f"{where} was trained with {name} = {theirs[name]!r}, but this run has {mine[name]!r}; "
                "use the models it was trained with, or train into another folder"
            )


def save_connector(bridge: "Bridge", card: ConnectorCard, folder: Path) -> None:
    """Write weights (fp32) and card; the folder appears complete or not at all, and replaces an older one."""
    from safetensors.torch import save_file

    temporary = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in bridge.state_dict().items()}, temporary / WEIGHTS
    )
    (temporary / CARD).write_text(card.model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_connector(
    folder: Path,
    *,
    vision: str,
    language_model: str,
    inject_layer: int = 0,
    options: Mapping[str, Any] | None = None,
    grid: Grid | None = None,
    vision_layer: int | None = None,
) -> "tuple[Bridge, ConnectorCard]":
    """A saved connector, as the bridge that it is, and its card.

    Args:
        folder: what `save_connector` wrote.
        vision: identity of the image tower it will stand behind.
        language_model: identity of the language model it will stand before.
        inject_layer: where its tokens will go in.
        options: what else is trained with it, and how; None: as it was trained.
        grid: how the features stand that it will read; None: as those it was trained on.
        vision_layer: the tower's layer that it will read; None: the one it was trained on.

    Raises:
        CuveeError: no connector there, or one trained with another tower, language model, layer or options, or, where
            that matters to it, another grid.
    """
    from safetensors.torch import load_file

    try:
        card = ConnectorCard.model_validate_json((folder / CARD).read_text())
    except (OSError, ValidationError) as error:
        raise CuveeError(f"{folder} holds no connector: {error}") from error
    here: dict[str, Any] = {"vision": vision, "language_model": language_model, "inject_layer": inject_layer}
    if options is not None:
        here["options"] = dict(options)
    if card.connector.grid_bound and grid is not None:
        here["grid"] = grid
    if vision_layer is not None:
        here["vision_layer"] = vision_layer
    card.model_copy(update=here).refuse_other(card, folder)
    tensors = _named(load_file(folder / WEIGHTS))
    blank = card.model_copy(update={"connector": card.connector.blank()})
    bridge = blank.bridge(restored_parts(card.options, tensors))
    bridge.load_state_dict(tensors)
    return bridge, card


def _named(weights: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """By the names in a bridge; files from before there were parts beside the connector held its own."""
    if any(name.startswith(("connector.", "parts.")) for name in weights):
        return weights
    return {f"connector.{name}": value for name, value in weights.items()}


def load_alike(folder: Path, card: ConnectorCard) -> "tuple[Bridge, ConnectorCard]":
    """A saved connector that goes on in the place of the card's.

    Raises:
        CuveeError: as `load_connector`, or a connector of another kind.
    """
    bridge, found = load_connector(
        folder,
        vision=card.vision,
        language_model=card.language_model,
        inject_layer=card.inject_layer,
        options=card.options,
        grid=card.grid,
        vision_layer=card.vision_layer,
    )
    if found.connector.kind != card.connector.kind:
        raise CuveeError(
            f"{folder} holds connector {found.connector.kind!r}, but this run asks for {card.connector.kind!r}; "
            "set `connector` to what it goes on from"
        )
    return bridge, found
