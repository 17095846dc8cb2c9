"""A layout as an attention mask: same document, no later place, and a branch sees the shared beginning and itself."""

from typing import TYPE_CHECKING

from stages.train.layout import Layout

if TYPE_CHECKING:
    import torch


def attention_mask(layout: Layout, device: str) -> "torch.Tensor | None":
    """(R, 1, T, T) bool, True where a query (third axis) sees a key; None where causal attention is all it takes.

    A place where nothing stands sees the places before it where nothing stands, and itself: a softmax over no key has
    no value.
    """
    import torch

    if layout.is_plain:
        return None
    documents = torch.from_numpy(layout.documents).to(device)
    branches = torch.from_numpy(layout.branches).to(device)
    same = documents[:, :, None] == documents[:, None, :]
    shared = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    return (same & shared).tril_()[:, None]
