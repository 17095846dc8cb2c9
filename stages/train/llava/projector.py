"""Our connector as a projector: Linear, activation, Linear; for ViP-LLaVA with a LayerNorm before."""

from typing import TYPE_CHECKING, Any

from schemas.errors import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn


def projector_weights(connector: "nn.Module") -> "tuple[dict[str, torch.Tensor], str]":
    """The projector's weights, and the name of its activation.

    An MLP narrower than the language model gets zero rows and columns, which its activation keeps at zero; a linear
    connector is the first layer, with the identity behind it.

    Args:
        connector: `mlp` or `linear`.

    Raises:
        RecipeError: another connector, or one that is wider inside than the language model.
    """
    import torch
    from torch import nn

    first: Any
    last: Any
    if isinstance(connector, nn.Linear):
        first, activation = connector, "linear"
        width = connector.out_features
        second, bias = torch.eye(width), torch.zeros(width)
    elif isinstance(connector, nn.Sequential) and [type(m) for m in connector] == [nn.Linear, nn.GELU, nn.Linear]:
        first, last, activation = connector[0], connector[2], "gelu"
        width, second, bias = last.out_features, last.weight, last.bias
    else:
        raise RecipeError("only connectors `mlp` and `linear` have the form of a LLaVA projector")
    if (spare := width - first.out_features) < 0:
        raise RecipeError(
            f"the connector is {first.out_features} wide inside and the language model {width}; a LLaVA projector is "
            "as wide as the language model: train with `hidden` at most that"
        )
    pad = torch.nn.functional.pad
    return {
        "linear_1.weight": pad(first.weight, (0, 0, 0, spare)),
        "linear_1.bias": pad(first.bias, (0, spare)),
        "linear_2.weight": pad(second, (0, spare)),
        "linear_2.bias": bias,
    }, activation
