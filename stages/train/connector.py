"""What every connector shares: built from a card, saved with it, and refused between other models than its own."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import CuveeError
from stages.train.mlp import mlp

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

WEIGHTS, CARD = "connector.safetensors", "connector.json"


class ConnectorCard(BaseModel):
    """Everything needed to rebuild a connector and to tell where it belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connector: Literal["mlp"] = "mlp"
    vision_width: int
    hidden: int
    language_width: int
    visual_tokens: int
    """Most visual tokens per image it was trained on."""
    vision: str
    """Identity of the image tower."""
    language_model: str
    """Identity of the language model."""
    init_seed: int

    def build(self) -> "torch.nn.Module":
        """A connector with its initial weights, in fp32 on the CPU."""
        return mlp(self.vision_width, self.hidden, self.language_width, self.init_seed)

    def refuse_other(self, other: "ConnectorCard", where: Path) -> None:
        """Compare with the card of saved weights.

        Raises:
            CuveeError: another tower, language model, width or start, with both values.
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
    save_file({name: value.detach().float().cpu() for name, value in bridge.state_dict().items()}, temporary / WEIGHTS)
    (temporary / CARD).write_text(card.model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_connector(folder: Path, *, vision: str, language_model: str) -> "tuple[Bridge, ConnectorCard]":
    """A saved connector, as the bridge that it is, and its card.

    Args:
        folder: what `save_connector` wrote.
        vision: identity of the image tower it will stand behind.
        language_model: identity of the language model it will stand before.

    Raises:
        CuveeError: no connector there, or one trained with another tower or language model.
    """
    from safetensors.torch import load_file

    from stages.train.bridge import Bridge

    try:
        card = ConnectorCard.model_validate_json((folder / CARD).read_text())
    except (OSError, ValidationError) as error:
        raise CuveeError(f"{folder} holds no connector: {error}") from error
    expected = card.model_copy(update={"vision": vision, "language_model": language_model})
    expected.refuse_other(card, folder)
    bridge = Bridge(card.build())
    bridge.load_state_dict(load_file(folder / WEIGHTS))
    return bridge, card
