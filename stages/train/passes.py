"""Forward passes of a language model over a layout: text from the first layer on, images from where they enter.

eP-ALM (arXiv:2303.11403) gives an image one place, whose value is set anew at the input of each of the last layers: the
place is there from the first of these layers on, and no text sees it before.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import CuveeError
from stages.train.agreement import agree
from stages.train.attention_masks import attention_masks
from stages.train.decoder_layers import decoder_layers
from stages.train.injection import halves
from stages.train.layout import NONE, Booleans, Layout, Said, lay_out

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.language_model import LanguageModel


def inside(bridge: "Bridge | None", model: Any, seen: "torch.Tensor | None") -> AbstractContextManager[Any]:
    """A context in which the parts of a bridge, if there is one, act inside a model; see `Bridge.inside`."""
    return nullcontext() if bridge is None else bridge.inside(model, seen)


def entrance(model: Any, shown: "Shown") -> int:
    """The layer at whose input images enter.

    Raises:
        CuveeError: the model has fewer layers than an image has values for its place.
    """
    if shown.placement == "insert":
        return shown.layer
    count, values = len(decoder_layers(model)), int(shown.tokens.shape[1]) - shown.soft
    if shown.layer or not 0 < values <= count:
        raise CuveeError(
            f"this connector sets its place anew at the last {values} layers, and the language model has {count}; "
            "give it fewer layers, and leave out `inject_layer`"
        )
    return count - values


def last_states(
    language: "LanguageModel", layout: Layout, shown: "Shown | None", caches: tuple[Any, Any] = (None, None)
) -> "torch.Tensor":
    """(R, T, width) last hidden states; what the layers keep goes into the caches, if there are any."""
    split = language.split(shown)
    if split.below is None:
        return run(language, split.above, layout, _filled(language, layout, shown, layout.visual != NONE), caches[1])
    assert shown is not None
    enters = _entering(layout, shown)
    text, stays = layout.without(enters, renumber=True)
    states = _filled(language, text, shown, text.visual != NONE)
    if text.tokens.shape[1]:
        states = run(language, split.below, text, states, caches[0])
    whole = states.new_zeros(*layout.tokens.shape, states.shape[-1])
    whole = _put(whole, stays, states.flatten(0, 1)[_numbers(text.documents >= 0, language.device)])
    states = _put(whole, enters, _rows(layout, shown, enters).to(states.dtype))
    with _replaced(language, layout, shown, enters):
        return run(language, split.above, layout, states, caches[1])


def next_states(
    language: "LanguageModel", ids: "torch.Tensor", shown: "Shown", caches: tuple[Any, Any]
) -> "torch.Tensor":
    """(R, 1, width) last hidden states of one more token (R,) a row, behind what the caches hold."""
    split, states = language.split(shown), language.embed(ids[:, None])
    for half, kept in zip((split.below, split.above), caches, strict=True):
        if half is not None:
            states = half(inputs_embeds=states, past_key_values=kept, use_cache=True).last_hidden_state
    return states


def states_at(language: "LanguageModel", layout: Layout, layer: int) -> "torch.Tensor":
    """(R, T, width) states of text alone at the input of a layer."""
    embedded = _filled(language, layout, None, layout.visual != NONE)
    below = halves(language.model, layer).below
    return embedded if below is None else run(language, below, layout, embedded, None)


def rows_can_be_shared(language: "LanguageModel") -> bool:
    """Whether documents in one row, one of them with two branches, get the states that they get alone."""
    said = [Said(ids, 0, before=(2, 1), between=(3,)) for ids in ([1, 2, 3], [0, 3, 1])]
    said.append(Said([2, 0], None, between=(1, 0)))
    alone = _predicting(language, lay_out(said, 0))
    try:
        shared = _predicting(language, lay_out(said, 0, pack=64, share=True))
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError):
        return False  # the model takes no mask of this shape
    return agree(shared, alone)


def _predicting(language: "LanguageModel", layout: Layout) -> "torch.Tensor":
    """(L, width) last hidden states where text predicts."""
    import torch

    with torch.inference_mode():
        states = run(
            language, language.model.base_model, layout, _filled(language, layout, None, layout.visual < 0), None
        )
    return states.flatten(0, 1)[torch.from_numpy(layout.places).to(language.device)]


def run(language: "LanguageModel", half: Any, layout: Layout, states: "torch.Tensor", kept: Any) -> "torch.Tensor":
    """Send states (R, T, width) through layers."""
    import torch

    masks = attention_masks(layout, language.model, language.device)
    positions = None if masks is None else torch.from_numpy(layout.positions).to(language.device)
    out = half(
        inputs_embeds=states,
        attention_mask=masks,
        position_ids=positions,
        past_key_values=kept,
        use_cache=kept is not None,
    )
    found: torch.Tensor = out.last_hidden_state
    return found


def _entering(layout: Layout, shown: "Shown") -> Booleans:
    """(R, T) the places that are not there below: all visual ones, or the one whose value is replaced."""
    seen: Booleans = layout.visual != NONE
    if shown.placement == "replace":
        seen &= layout.visual % shown.places == shown.soft
    return seen


def _filled(language: "LanguageModel", layout: Layout, shown: "Shown | None", which: Booleans) -> "torch.Tensor":
    """(R, T, width) input embeddings of text, with the images' tokens at some places."""
    import torch

    embedded = language.embed(torch.from_numpy(layout.tokens).to(language.device))
    if shown is None or not which.any():
        return embedded  # text alone has no graph
    return _put(embedded, which, _rows(layout, shown, which).to(embedded.dtype))


def _rows(layout: Layout, shown: "Shown", which: Booleans, later: int = 0) -> "torch.Tensor":
    """(k, width) the images' tokens at some places; `later`: that so many layers after."""
    import torch

    visual, count = layout.visual[which], int(shown.tokens.shape[1])
    numbers = visual // max(shown.places, 1) * count + visual % max(shown.places, 1) + later
    return shown.tokens.flatten(0, 1)[torch.from_numpy(numbers).to(shown.tokens.device)]


def _put(states: "torch.Tensor", where: Booleans, rows: "torch.Tensor") -> "torch.Tensor":
    """States (R, T, width) with other rows (k, width) at k places."""
    flat = states.flatten(0, 1).index_copy(0, _numbers(where, str(states.device)), rows)
    return flat.view_as(states)


def _numbers(where: Booleans, device: str) -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.flatnonzero(where)).to(device)


@contextmanager
def _replaced(language: "LanguageModel", layout: Layout, shown: "Shown", place: Booleans) -> Iterator[None]:
    """The later layers find another value at the place."""
    layers = decoder_layers(language.model)[language.split(shown).layer + 1 :] if shown.placement == "replace" else []
    with ExitStack() as stack:
        for later, layer in enumerate(layers, start=1):
            rows = _rows(layout, shown, place, later)
            hook = layer.register_forward_pre_hook(
                lambda _, given, rows=rows: (_put(given[0], place, rows.to(given[0].dtype)), *given[1:])
            )
            stack.callback(hook.remove)
        yield
