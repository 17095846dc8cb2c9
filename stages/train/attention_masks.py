"""A layout as attention masks: same document, no later place, and a branch sees the shared beginning and itself.

Layers with a sliding window of w see the w last positions of their document, itself included.
"""

from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.layout import Layout

if TYPE_CHECKING:
    import torch

FULL, SLIDING = "full_attention", "sliding_attention"


def attention_masks(layout: Layout, model: Any, device: str) -> Any:
    """What a model takes as `attention_mask`: (R, 1, T, T); by kind of layer where these differ; None for plain rows.

    A place where nothing stands sees the places before it where nothing stands, and itself: a softmax over no key has
    no value.

    Raises:
        CuveeError: the model has layers of another kind than full and sliding attention.
    """
    if layout.is_plain:
        return None
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [FULL if _window(config) is None else SLIDING])
    if other := kinds - {FULL, SLIDING}:
        raise CuveeError(f"the language model has layers of {sorted(other)[0]!r}, in which rows cannot be shared")
    seen, window = visible(layout, device), _window(config)
    if SLIDING not in kinds or window is None or layout.positions.max() < window:
        return _as_taken(seen, model)
    masks = {FULL: _as_taken(seen, model), SLIDING: _as_taken(seen & _near(layout, window, device), model)}
    return masks if len(kinds) == 2 else masks[SLIDING]


def visible(layout: Layout, device: str) -> "torch.Tensor":
    """(R, 1, T, T) bool, True where a query (third axis) sees a key."""
    import torch

    documents = torch.from_numpy(layout.documents).to(device)
    branches = torch.from_numpy(layout.branches).to(device)
    same = documents[:, :, None] == documents[:, None, :]
    shared = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    return (same & shared).tril_()[:, None]


def _near(layout: Layout, window: int, device: str) -> "torch.Tensor":
    import torch

    positions = torch.from_numpy(layout.positions).to(device)
    return (positions[:, None, :, None] - positions[:, None, None, :]) < window


def _window(config: Any) -> int | None:
    window: int | None = getattr(config, "sliding_window", None)
    return window


def _as_taken(seen: "torch.Tensor", model: Any) -> "torch.Tensor":
    """Booleans for fused attention; for attention that adds its mask, 0 and the lowest number."""
    import torch

    if model.config._attn_implementation != "eager":
        return seen
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(seen.shape, dtype=model.dtype, device=seen.device).masked_fill_(~seen, lowest)
