"""The layers of a causal language model, wherever its class keeps them."""

from typing import TYPE_CHECKING, Any

from schemas.errors import ContractError

if TYPE_CHECKING:
    import torch


def decoder_layers(model: Any) -> "list[torch.nn.Module]":
    """The layers of a transformers causal language model, first to last.

    Raises:
        ContractError: it holds no list of as many layers as its config says.
    """
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise ContractError(f"{type(model).__name__} holds no list of {count} layers")
