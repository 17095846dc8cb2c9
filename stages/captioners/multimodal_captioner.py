"""Any image-and-text model as a captioner: the caption is its answer to a request for one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field

from stages.captioners.likelihood import CaptionerSettings, TokenScores, token_scores, without_special
from stages.device import Device
from stages.file_identity import Located
from stages.pixels import PixelError, decode, flat_rgb
from stages.raters.multimodal_model import MultimodalModel, UnfitError, load_model
from stages.raters.transformers_rater import TransformersBackend
from stages.train.model_files import folder_identity, local_folder

REQUEST = "Write a caption for this image."
VERSION = 2
"""Raise it when the request changes, or how a caption behind it is cut into tokens: part of the scores' address."""


class MultimodalCaptioner(CaptionerSettings):
    """A model folder, run by transformers; no code from the folder is ever run."""

    kind: Literal["transformers"] = "transformers"
    model: Located
    """Folder of an image-and-text model with its processor, or a hub name in the local cache."""
    device: Device = Field(default="auto", validate_default=True)
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"

    def check(self) -> None:
        """Refuse a folder that holds no image-and-text model."""
        TransformersBackend.model_validate({"model": self.model, "device": "cpu"}).check()

    def identity(self) -> dict[str, object]:
        """Settings and the model by its files' content."""
        settings = self.model_dump(mode="json", exclude={"model"})
        return {**settings, "weights": folder_identity(local_folder(self.model)), "request": VERSION}

    def open(self) -> "LoadedMultimodalCaptioner":
        """Load the model."""
        model = load_model(local_folder(self.model), device=self.device, dtype=self.dtype, threads=self.threads)
        return LoadedMultimodalCaptioner(model, self.max_tokens)


@dataclass
class LoadedMultimodalCaptioner:
    """A loaded model. A pass holds one pair, so that no neighbour changes a bit."""

    model: MultimodalModel
    max_tokens: int

    def scores(self, images: Sequence[bytes], captions: Sequence[str]) -> list[TokenScores | str]:
        """Per pair the scores of its tokens, or why there are none."""
        return [self._scores(image, caption) for image, caption in zip(images, captions, strict=True)]

    @cached_property
    def _space(self) -> str:
        return "" if self.model.answer_begins_alone() else " "

    @cached_property
    def _tokens(self) -> Callable[[str], list[int]]:
        return self.model.answers_to(REQUEST)

    def _ids(self, caption: str) -> list[int]:
        said = self._space + without_special(self.model.tokenizer, caption.strip())
        return self._tokens(said)[: self.max_tokens]

    def _scores(self, image: bytes, caption: str) -> TokenScores | str:
        try:
            asked = self.model.prompts(flat_rgb(decode(image)), [REQUEST])
            blind = self.model.prompts(None, [REQUEST])
            tokens = self._ids(caption)
            self.model.refuse_longer(asked, len(tokens))
        except (PixelError, UnfitError) as error:
            return error.reason
        if not tokens:
            return "no_caption_tokens"
        return token_scores(self.model.label_logits(asked, tokens), self.model.label_logits(blind, tokens), tokens)
