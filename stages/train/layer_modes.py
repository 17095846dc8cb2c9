"""How the frozen language model's layers run while a connector is trained: as they are, or compiled.

It is undone at the end, so that the model that others share is as it was.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stages.train.decoder_layers import decoder_layers

if TYPE_CHECKING:
    from stages.train.language_model import LanguageModel
    from stages.train.settings import TrainSettings


@contextlib.contextmanager
def layer_modes(settings: "TrainSettings", language: "LanguageModel") -> Iterator[dict[str, Any]]:
    """The mode that settings ask for; what there is to tell about it is in the mapping at the end.

    `graphs`: how often a layer was compiled. Layers share a graph; a batch of another shape costs a second one, which
    takes all shapes from then on; more than that is a loss of time that should be looked into.
    """
    told: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if settings.compile:
            stack.enter_context(_compiled(language, told))
        yield told


@contextlib.contextmanager
def _compiled(language: "LanguageModel", told: dict[str, Any]) -> Iterator[None]:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    layers = decoder_layers(language.model)
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        told["graphs"] = counters["stats"]["unique_graphs"] - before
