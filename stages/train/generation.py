"""Greedy captions of images: the beginning once, then a token at a time on the KV caches of both halves."""

from typing import TYPE_CHECKING

from stages.train.layout import NONE, lay_out
from stages.train.passes import inside, last_states, next_states

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.language_model import LanguageModel


def greedy_captions(language: "LanguageModel", shown: "Shown", most: int, bridge: "Bridge | None") -> list[list[int]]:
    """At most `most` ids per image, the end token left out, behind the first template.

    Args:
        language: the language model.
        shown: the images' tokens.
        most: ids per caption.
        bridge: what acts inside the model; None: nothing does.
    """
    import torch

    rows = len(shown.tokens)
    found: list[list[int]] = [[] for _ in range(rows)]
    running = [True] * rows
    layout = lay_out([language.said([language.eos], False, image) for image in range(rows)], shown.places)
    language.prepared(layout, shown)
    caches = language.split(shown).caches()
    with inside(bridge, language.model, torch.from_numpy(layout.visual != NONE).to(language.device)):
        best = _likeliest(language, last_states(language, layout, shown, caches))
    for left in reversed(range(most)):
        for row, token in enumerate(best.tolist()):
            running[row] = running[row] and token != language.eos
            if running[row]:
                found[row].append(token)
        if not left or not any(running):
            break
        with inside(bridge, language.model, None):
            best = _likeliest(language, next_states(language, best, shown, caches))
    return found


def _likeliest(language: "LanguageModel", states: "torch.Tensor") -> "torch.Tensor":
    """(R,) the token that follows the last of (R, T, width) hidden states."""
    best: torch.Tensor = language.head(inputs_embeds=states[:, -1:]).logits[:, -1].argmax(dim=-1)
    return best
