"""An open_clip model that embeds image bytes and captions; knows nothing of columns and works outside Ray.

Bits depend on the sample itself, on the shape of a forward pass (always `IMAGES_AT_ONCE` or `TEXTS_AT_ONCE` rows), the
thread count, the device and the dtype, and on nothing else: no autotuning, no TF32.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.clip_model.halves import Halves, halves
from stages.clip_model.images import Uploads, passes, prepared
from stages.clip_model.texts import TextTower
from stages.clip_model.weights import ModelFiles
from stages.missing import no_caption
from stages.pixels import PixelError, decode, flat_rgb, middle, most_aspect

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGES_AT_ONCE = {"cpu": 4, "cuda": 256}
TEXTS_AT_ONCE = {"cpu": 32, "cuda": 256}
"""Rows of one forward pass by device kind. On a CPU few images stay in its cache: MobileNet at 224 px embeds 72
images/s a core by fours and 26 by sixty-fours; a ViT loses a tenth."""
TEXT_CHARACTERS = 4000
"""What a tokenizer gets of a longer caption: tens of characters for each of its 77 tokens, and few enough for pieces
whose merging takes quadratic time."""
ADDRESSED: dict[str, dict[str, object]] = {"cpu": {}, "cuda": {"preprocess": "bytes resized by torch"}}
"""What else decides about bits by device kind, for addresses: on a GPU images once came as floats from Pillow."""
DTYPES = ("fp32", "fp16", "bf16", "amp_bf16")

LOADED: "WeakValueDictionary[Any, ClipModel]" = WeakValueDictionary()

Floats = npt.NDArray[np.float32]
Reasons = list[str | None]
Item = TypeVar("Item")


def upright_rgb(image: bytes | None) -> "Image.Image":
    """What a model is shown of an image file.

    Raises:
        PixelError: those of `stages.pixels.decode`, and `missing_image` for None.
    """
    if image is None:
        raise PixelError("missing_image", "no bytes")
    return flat_rgb(decode(image))


@dataclass(frozen=True)
class ClipModel:
    """A loaded model with its own preprocessing and tokenizer; several threads may embed at once."""

    network: Any
    preprocess: Callable[..., "torch.Tensor"]
    tokenize: Callable[[list[str]], "torch.Tensor"]
    device: str
    dtype: str
    threads: int
    compiled: bool = False
    turn: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    """Who holds it sends an image pass to the device, where buffers and the order of events are shared."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before a softmax: the inverse of the temperature it was trained to."""
        return float(self.network.logit_scale.detach().exp())

    def embed_images(self, images: Sequence[bytes | None]) -> tuple[Floats, Reasons]:
        """Unit-norm embeddings (n, d) and per image None or why its row is zero.

        Reasons are those of `upright_rgb`, and `no_embedding` where the model gives zero, NaN or infinity.
        """
        return self.embed(images, upright_rgb)

    def embed(self, items: Sequence[Item], picture: Callable[[Item], "Image.Image"]) -> tuple[Floats, Reasons]:
        """As `embed_images`, of whatever `picture` makes an RGB image of; called in threads ahead of a GPU.

        A `PixelError` that `picture` raises leaves its reason.
        """

        def pixels(item: Item) -> "torch.Tensor | str":
            try:
                return self.pixels(picture(item))
            except PixelError as error:
                return error.reason

        rows, outputs, counts, reasons = IMAGES_AT_ONCE[self.device], [], [], Reasons()
        ready = prepared(items, pixels, rows, ahead=self.device != "cpu")
        for sound in passes(ready, rows, reasons):
            with self.turn:
                outputs.append(self._run(self._encode_image, self.uploaded(sound)))
            counts.append(len(sound))
        # Only here the host waits for a GPU.
        found = [output[:count].cpu().numpy() for output, count in zip(outputs, counts, strict=True)]
        return _unit_rows(np.concatenate(found) if found else np.zeros((0, 0), np.float32), reasons)

    def pixels(self, picture: "Image.Image") -> "torch.Tensor":
        """(3, height, width) of an RGB picture as they go to the device: bytes before a GPU that knows the rest."""
        picture = middle(picture, most_aspect(self.preprocess))
        if self._halves is not None:
            return self._halves.pixels(picture)
        return self.preprocess(picture).to(self._input_dtype)

    def uploaded(self, pixels: "list[torch.Tensor]") -> "torch.Tensor":
        """What the image tower takes, on the device, of at most one pass of `pixels`."""
        batch = self._uploads(pixels)
        return batch if self._halves is None else self._halves.numbers(batch)

    def embed_texts(self, texts: Sequence[str | None]) -> tuple[Floats, Reasons]:
        """Unit-norm embeddings (n, d) and per text None or `missing_caption`, `empty_caption`, `no_embedding`.

        Equal texts are embedded once, also those of earlier calls as far as they are remembered. Of a text longer than
        `TEXT_CHARACTERS` the beginning counts.
        """
        reasons: Reasons = [no_caption(text) for text in texts]
        sound = [
            _beginning(text) for text, reason in zip(texts, reasons, strict=True) if text is not None and reason is None
        ]
        return _unit_rows(self._texts.features(sound), reasons)

    def embed_pairs(
        self, images: Sequence[bytes | None], texts: Sequence[str | None]
    ) -> tuple[tuple[Floats, Reasons], tuple[Floats, Reasons]]:
        """`embed_images` and `embed_texts`; before a GPU, captions are tokenised while images are decoded."""
        if self.device == "cpu":
            return self.embed_images(images), self.embed_texts(texts)
        with ThreadPoolExecutor(1) as pool:
            captions = pool.submit(self.embed_texts, texts)
            return self.embed_images(images), captions.result()

    @cached_property
    def _texts(self) -> TextTower:
        return TextTower(self.network, self.tokenize, self._run, TEXTS_AT_ONCE[self.device])

    @cached_property
    def _halves(self) -> Halves | None:
        return None if self.device == "cpu" else halves(self.preprocess, self.device, self._input_dtype)

    @cached_property
    def _uploads(self) -> Uploads:
        return Uploads(self.device, IMAGES_AT_ONCE[self.device])

    @cached_property
    def _encode_image(self) -> Callable[..., "torch.Tensor"]:
        import torch

        encode: Callable[..., torch.Tensor] = self.network.encode_image
        return torch.compile(encode, dynamic=False) if self.compiled else encode

    @cached_property
    def _input_dtype(self) -> "torch.dtype":
        """bf16 under autocast too: its first layer would cast what it gets, and half the bytes are copied."""
        import torch

        return {"fp32": torch.float32, "fp16": torch.float16}.get(self.dtype, torch.bfloat16)

    def _run(self, encode: Callable[..., "torch.Tensor"], batch: "torch.Tensor") -> "torch.Tensor":
        import torch

        torch.set_num_threads(self.threads)  # each time: other code in this process may have changed it
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "amp_bf16")
        with torch.inference_mode(), autocast:
            return encode(batch.to(self.device, non_blocking=True)).float()


def load(
    files: ModelFiles, *, device: str = "cpu", dtype: str = "fp32", threads: int = 1, compiled: bool = False
) -> ClipModel:
    """Load a model that `weights.find_model` found; what is not in the local cache is downloaded.

    Stages of one process that ask for the same get the same, for as long as one of them holds it.

    Args:
        files: which model.
        device: `cpu` or `cuda`.
        dtype: one of `DTYPES`: the numbers of weights and activations; `amp_bf16` keeps the weights in float32 and lets
            autocast choose where bfloat16 is enough. Embeddings are float32 in any case.
        threads: torch's threads for one forward pass on a CPU.
        compiled: run the image tower through torch.compile, which takes a minute or so at its first pass.

    Raises:
        RecipeError: no such device here, or open_clip cannot load the model, with its own words.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("clip: this machine has no CUDA device; set `device: cpu` or run where one is")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    key = (files, files.identity(), device, dtype, threads, compiled)
    if (model := LOADED.get(key)) is None:
        network, preprocess, tokenize = _loaded(files, device, dtype)
        model = LOADED[key] = ClipModel(network, preprocess, tokenize, device, dtype, threads, compiled)
    return model


def _loaded(files: ModelFiles, device: str, dtype: str) -> tuple[Any, Any, Any]:
    import open_clip
    import torch

    quick_gelu = open_clip.pretrained.get_pretrained_cfg(files.name, files.pretrained or "").get("quick_gelu", False)
    try:
        network, preprocess = open_clip.create_model_from_pretrained(
            files.name, files.pretrained, precision=dtype, device=device, force_quick_gelu=quick_gelu
        )
        tokenize = open_clip.get_tokenizer(files.name)
    except Exception as error:  # open_clip, torch, safetensors and the hub each raise their own
        what = f"{files.name!r}" + (f" with {files.pretrained!r}" if files.pretrained else "")
        raise RecipeError(f"clip: model {what} does not load: {error!s:.800}") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last), preprocess, tokenize


def _beginning(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text.lstrip()[:TEXT_CHARACTERS]


def _unit_rows(features: Floats, reasons: Reasons) -> tuple[Floats, Reasons]:
    """Spread the embedded rows over all of them, at norm 1; those without a finite norm get a reason as well."""
    norms = np.sqrt(np.square(features, dtype=np.float64).sum(axis=1))
    usable = np.isfinite(norms) & (norms > 0)
    places = np.flatnonzero([reason is None for reason in reasons])
    spread = np.zeros((len(reasons), features.shape[1]), np.float32)
    spread[places[usable]] = features[usable] / norms[usable, None]
    for place in places[~usable]:
        reasons[place] = "no_embedding"
    return spread, reasons
