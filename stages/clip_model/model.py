"""An open_clip model that embeds image bytes and captions; knows nothing of columns and works outside Ray.

Bits depend on how many rows stand in one forward pass (fixed counts of the caller's list, what cannot be embedded left
out), on the thread count, the device and the dtype, and on nothing else: no autotuning, no TF32.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.clip_model.weights import ModelFiles
from stages.pixels import PixelError, decode, flat_rgb

if TYPE_CHECKING:
    import torch

IMAGES_AT_ONCE = {"cpu": 4, "cuda": 256}
TEXTS_AT_ONCE = {"cpu": 64, "cuda": 256}
"""Rows of one forward pass by device kind. On a CPU few images stay in its cache: MobileNet at 224 px embeds 72
images/s a core by fours and 26 by sixty-fours; a ViT loses a tenth."""
TEXT_CHARACTERS = 4000
"""What a tokenizer gets of a longer caption: tens of characters for each of its 77 tokens, and few enough for pieces
whose merging takes quadratic time."""
DECODERS = 16
"""Most threads that decode ahead of a GPU; a CPU has nothing to wait for."""

Floats = npt.NDArray[np.float32]
Reasons = list[str | None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipModel:
    """A loaded model with its own preprocessing and tokenizer."""

    network: Any
    preprocess: Callable[..., "torch.Tensor"]
    tokenize: Callable[[list[str]], "torch.Tensor"]
    device: str
    dtype: "torch.dtype"
    threads: int

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before a softmax: the inverse of the temperature it was trained to."""
        return float(self.network.logit_scale.detach().exp())

    def embed_images(self, images: Sequence[bytes | None]) -> tuple[Floats, Reasons]:
        """Unit-norm embeddings (n, d) and per image None or why its row is zero.

        Reasons are those of `stages.pixels.decode`, `missing_image` for None, and `no_embedding` where the model gives
        zero, NaN or infinity.
        """
        rows: list[Floats] = []
        reasons: Reasons = []
        for pixels in self._prepared(images):
            reasons += [pixel if isinstance(pixel, str) else None for pixel in pixels]
            if sound := [pixel for pixel in pixels if not isinstance(pixel, str)]:
                rows.append(self._image_features(sound))
        return _unit_rows(rows, reasons)

    def embed_texts(self, texts: Sequence[str | None]) -> tuple[Floats, Reasons]:
        """Unit-norm embeddings (n, d) and per text None or `missing_caption`, `empty_caption`, `no_embedding`.

        Equal texts are embedded once, in the order in which they first stand. Of a text longer than `TEXT_CHARACTERS`
        the beginning counts.
        """
        reasons: Reasons = [_no_caption(text) for text in texts]
        texts = [text and _beginning(text) for text in texts]
        sound = [text for text, reason in zip(texts, reasons, strict=True) if text is not None and reason is None]
        places = {text: place for place, text in enumerate(dict.fromkeys(sound))}
        distinct = [self._text_features(chunk) for chunk in _chunks(list(places), TEXTS_AT_ONCE[self.device])]
        rows = [np.concatenate(distinct)[[places[text] for text in sound]]] if distinct else []
        return _unit_rows(rows, reasons)

    def _prepared(self, images: Sequence[bytes | None]) -> Iterator[list["torch.Tensor | str"]]:
        """Per forward pass, pixels or a reason for each image; before a GPU, threads decode one pass ahead."""
        chunks = _chunks(images, IMAGES_AT_ONCE[self.device])
        if self.device == "cpu":
            yield from ([self._pixels(image) for image in chunk] for chunk in chunks)
            return
        import torch

        waiting = None
        with ThreadPoolExecutor(
            min(DECODERS, os.cpu_count() or 1), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            for chunk in chunks:
                ready, waiting = waiting, pool.map(self._pixels, chunk)
                if ready is not None:
                    yield list(ready)
            if waiting is not None:
                yield list(waiting)

    def _pixels(self, image: bytes | None) -> "torch.Tensor | str":
        if image is None:
            return "missing_image"
        try:
            return self.preprocess(flat_rgb(decode(image)))
        except PixelError as error:
            return error.reason

    def _image_features(self, pixels: list["torch.Tensor"]) -> Floats:
        import torch

        batch = torch.stack(pixels).to(self.device, self.dtype, memory_format=torch.channels_last)
        return self._features(self.network.encode_image, batch)

    def _text_features(self, texts: list[str]) -> Floats:
        return self._features(self.network.encode_text, self.tokenize(texts).to(self.device))

    def _features(self, encode: Callable[..., "torch.Tensor"], batch: "torch.Tensor") -> Floats:
        import torch

        torch.set_num_threads(self.threads)  # each time: other code in this process may have changed it
        with torch.inference_mode():
            features: Floats = encode(batch).float().cpu().numpy()
        return features


def load(files: ModelFiles, *, device: str = "cpu", dtype: str = "fp32", threads: int = 1) -> ClipModel:
    """Load a model that `weights.find_model` found; what is not in the local cache is downloaded.

    Args:
        files: which model.
        device: `cpu` or `cuda`.
        dtype: `fp32`, `fp16` or `bf16`; embeddings are float32 in any case.
        threads: torch's threads for one forward pass on a CPU.

    Raises:
        RecipeError: no such device here, or open_clip cannot load the model, with its own words.
    """
    import open_clip
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("clip: this machine has no CUDA device; set `device: cpu` or run where one is")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    quick_gelu = open_clip.pretrained.get_pretrained_cfg(files.name, files.pretrained or "").get("quick_gelu", False)
    try:
        network, preprocess = open_clip.create_model_from_pretrained(
            files.name, files.pretrained, precision=dtype, device=device, force_quick_gelu=quick_gelu
        )
        tokenize = open_clip.get_tokenizer(files.name)
    except Exception as error:  # open_clip, torch, safetensors and the hub each raise their own
        what = f"{files.name!r}" + (f" with {files.pretrained!r}" if files.pretrained else "")
        raise RecipeError(f"clip: model {what} does not load: {error!s:.800}") from error
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return ClipModel(network, preprocess, tokenize, device, open_clip.get_input_dtype(dtype) or torch.float32, threads)


def _chunks(items: Sequence[Item], rows: int) -> list[list[Item]]:
    return [list(items[start : start + rows]) for start in range(0, len(items), rows)]


def _no_caption(text: str | None) -> str | None:
    if text is None:
        return "missing_caption"
    return None if text.strip() else "empty_caption"


def _beginning(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text.lstrip()[:TEXT_CHARACTERS]


def _unit_rows(rows: list[Floats], reasons: Reasons) -> tuple[Floats, Reasons]:
    """Spread the embedded rows over all of them, at norm 1; those without a finite norm get a reason as well."""
    features = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    norms = np.sqrt(np.square(features, dtype=np.float64).sum(axis=1))
    usable = np.isfinite(norms) & (norms > 0)
    places = np.flatnonzero([reason is None for reason in reasons])
    spread = np.zeros((len(reasons), features.shape[1]), np.float32)
    spread[places[usable]] = features[usable] / norms[usable, None]
    for place in places[~usable]:
        reasons[place] = "no_embedding"
    return spread, reasons
