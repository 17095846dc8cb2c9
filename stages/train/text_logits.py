"""Logits of caption tokens without the image: constants of a frozen language model, computed once for a corpus.

The image's places are left out, and every token keeps the position that it has behind the image, so that this equals a
second forward pass in which nothing may attend to the image. One float a label token, in a file whose name follows
from all it depends on: the language model, the labels, the text around the image, and the places an image takes up.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.errors import CuveeError
from stages.train.injection import halves
from stages.train.layout import PADDING, Layout, Said, lay_out
from stages.train.passes import run

if TYPE_CHECKING:
    import torch

    from stages.train.language_model import LanguageModel

Floats = npt.NDArray[np.float32]
VERSION = 1
"""Raise it when the same captions give other logits."""
ROWS = 32
"""Captions of one forward pass."""


@dataclass(frozen=True)
class TextLogits:
    """The logit of each label's own token, caption by caption."""

    values: Floats
    """(L,) of all captions, end to end."""
    offsets: npt.NDArray[np.int64]
    """(n + 1,) where each caption's begin."""

    def of(self, caption: int) -> Floats:
        """Those of one caption."""
        return self.values[self.offsets[caption] : self.offsets[caption + 1]]


def text_logits(language: "LanguageModel", said: Sequence[Said], places: int, layer: int = 0) -> TextLogits:
    """Compute them, `ROWS` captions a time.

    Args:
        language: the language model, as it is.
        said: the captions, and what stands around their images.
        places: places that an image takes up.
        layer: where it enters; below, text counts its positions without it.

    Raises:
        CuveeError: the model goes by more than positions, so that nothing can be left out.
    """
    import torch

    if not language.shares_rows:
        raise CuveeError(
            f"language model {type(language.model).__name__} goes by more than masks and position ids, so captions "
            "cannot be scored without their image; leave out `token_weights`"
        )
    found: list[Floats] = []
    with torch.inference_mode():
        for start in range(0, len(said), ROWS):
            layout = lay_out(said[start : start + ROWS], places).without_visual(language.eos)
            states = text_states(language, layout, layer).flatten(0, 1)[torch.from_numpy(layout.places)]
            logits = language.head(inputs_embeds=states[None]).logits[0].float()
            labels = torch.from_numpy(layout.labels).to(logits.device)
            found.append(logits.gather(1, labels[:, None])[:, 0].cpu().numpy())
    offsets = np.cumsum([0, *(len(one.ids) for one in said)], dtype=np.int64)
    return TextLogits(np.concatenate(found) if found else np.zeros(0, np.float32), offsets)


def text_states(language: "LanguageModel", layout: Layout, layer: int) -> "torch.Tensor":
    """(R, T, width) last hidden states of a layout of text, whose positions leave room for images from a layer on."""
    import torch

    split = halves(language.model, layer)
    states = language.embed(torch.from_numpy(layout.tokens).to(language.device))
    if split.below is not None:
        columns = np.broadcast_to(np.arange(layout.tokens.shape[1]), layout.tokens.shape)
        below = replace(layout, positions=np.where(layout.documents == PADDING, 0, columns))
        states = run(language, split.below, below, states, None)
    return run(language, split.above, layout, states, None)


def cached_text_logits(
    language: "LanguageModel", identity: str, said: Sequence[Said], places: int, layer: int, folder: Path | None
) -> TextLogits:
    """The same from a file, written where it is missing.

    Args:
        language: the language model.
        identity: of the language model, by content.
        said: the captions.
        places: places that an image takes up.
        layer: where it enters.
        folder: of the files; None: they are not kept.
    """
    if folder is None:
        return text_logits(language, said, places, layer)
    path = folder / f"text-logits-{_address(identity, said, places, layer)}.npy"
    if not path.exists():
        _write_whole(text_logits(language, said, places, layer).values, path)
    offsets = np.cumsum([0, *(len(one.ids) for one in said)], dtype=np.int64)
    return TextLogits(np.load(path, allow_pickle=False), offsets)


def _address(identity: str, said: Sequence[Said], places: int, layer: int) -> str:
    digest = xxhash.xxh3_128(json.dumps([VERSION, identity, places, layer, ROWS]).encode())
    for one in said:
        line = [list(map(int, part)) for part in (one.before, one.between, one.ids)]
        digest.update(json.dumps([one.image is None, line]).encode())
    return digest.hexdigest()


def _write_whole(values: Floats, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    with open(temporary, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
    os.replace(temporary, path)
