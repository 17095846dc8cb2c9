"""Logits of caption tokens without the image: constants of a frozen language model, computed once for a corpus.

The image's places are left out, and every token keeps the position that it has behind the image, so that this equals a
second forward pass in which nothing may attend to the image. One float a label token, in a file whose name follows
from all it depends on: the language model, the labels, the text around the image, and the places an image takes up.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from stages.train.layout import Layout, Said, lay_out

if TYPE_CHECKING:
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


def without_image(said: Sequence[Said], places: int, end: int) -> Layout:
    """The layout of captions without their images, every token at the position it has behind `places` of them.

    Where nothing but the image stands before a caption, the end token takes its last place: it is what stood before a
    text when the model was trained.
    """
    alone = [Said(one.ids, None, one.before, one.between or (() if one.before else (end,))) for one in said]
    layout = lay_out(alone, places)
    first = np.array([len(one.before) for one in said])[:, None]
    gap = np.array([0 if one.image is None else places - (not one.before and not one.between) for one in said])[:, None]
    return replace(layout, positions=layout.positions + gap * (layout.positions >= first))


def text_logits(language: "LanguageModel", said: Sequence[Said], places: int) -> TextLogits:
    """Compute them, `ROWS` captions a time."""
    import torch

    from stages.train.bridge import Bridge, Shown

    nothing, bridge = Shown(torch.zeros(0, places, language.width, device=language.device)), Bridge(torch.nn.Identity())
    found: list[Floats] = []
    with torch.inference_mode():
        for start in range(0, len(said), ROWS):
            layout = without_image(said[start : start + ROWS], places, language.eos)
            logits = language.label_logits(layout, nothing, bridge)
            labels = torch.from_numpy(layout.labels).to(logits.device)
            found.append(logits.gather(1, labels[:, None])[:, 0].cpu().numpy())
    offsets = np.cumsum([0, *(len(one.ids) for one in said)], dtype=np.int64)
    return TextLogits(np.concatenate(found) if found else np.zeros(0, np.float32), offsets)


def cached_text_logits(
    language: "Callable[[], LanguageModel]", identity: str, said: Sequence[Said], places: int, folder: Path | None
) -> TextLogits:
    """The same from a file, written where it is missing.

    Args:
        language: the language model, needed where there is no file.
        identity: of the language model, by content.
        said: the captions.
        places: places that an image takes up.
        folder: of the files; None: they are not kept.
    """
    if folder is None:
        return text_logits(language(), said, places)
    path = folder / f"text-logits-{_address(identity, said, places)}.npy"
    if not path.exists():
        _write_whole(text_logits(language(), said, places).values, path)
    offsets = np.cumsum([0, *(len(one.ids) for one in said)], dtype=np.int64)
    return TextLogits(np.load(path, allow_pickle=False), offsets)


def _address(identity: str, said: Sequence[Said], places: int) -> str:
    digest = xxhash.xxh3_128(json.dumps([VERSION, identity, places, ROWS]).encode())
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
