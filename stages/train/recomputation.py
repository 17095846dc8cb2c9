"""Gradient checkpointing (arXiv:1604.06174): layers keep what goes in, and are computed again for the backward pass.

A frozen model's layers cost 4 N operations a token, forward and backward; with this 6 N. So it is for what does not
fit. Transformers' own switch does nothing for a model in eval mode, and nothing would put options' parts back into a
layer when it is computed again: here each layer is wrapped for the length of one pass, with the context that it needs.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Contexts = Callable[[], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def recomputed(layers: Any, again: Contexts) -> Iterator[None]:
    """Around a forward pass through layers.

    Args:
        layers: torch modules.
        again: makes a context around each layer's second pass, in which it computes what it did in the first.
    """
    from torch.utils.checkpoint import checkpoint

    def both() -> tuple[Any, Any]:
        return contextlib.nullcontext(), again()

    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=both)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
