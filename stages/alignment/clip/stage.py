"""The stage: image and caption embeddings of one open_clip model, and their cosine."""

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from schemas.columns import CAPTION, CLIP_SCORE, IMAGE, IMAGE_EMBEDDING, TEXT_EMBEDDING, named_column
from stages.clip_model.model import ADDRESSED, IMAGES_AT_ONCE, TEXTS_AT_ONCE, ClipModel, Floats, Reasons, load
from stages.clip_model.weights import find_model
from stages.device import Device
from stages.file_identity import Located
from stages.stage import Scorer, Stage


class Clip(Stage):
    """Unit-norm embeddings in float16 and the CLIP score, their cosine in float32 before that rounding.

    The score lies within 1e-3 of the stored embeddings' dot product. What can be computed of a row is given: an image
    whose caption is missing keeps its embedding, beside the reason. Images are turned upright first, which open_clip's
    own loader does not do; otherwise preprocessing and tokenizer are the model's own. A second model in one recipe
    takes a `column`, and its columns are called `<column>_image_embedding`, `<column>_text_embedding` and
    `<column>_clip_score`: pairs that only one model finds equal are no duplicates by a `veto` of the other.
    """

    kind: Literal["clip"] = "clip"
    model: Located
    """A name open_clip knows, `hf-hub:ORG/REPO`, `local-dir:PATH`, or the path of such a folder."""
    pretrained: Located | None = None
    """Tag or weights file of a model that open_clip knows by name; folders and hub models bring their own."""
    device: Device = Field(default="auto", validate_default=True)
    """`auto` is what the machine has that reads the recipe; name `cuda` where only the cluster's workers have GPUs."""
    dtype: Literal["fp32", "fp16", "bf16", "amp_bf16"] = "fp32"
    """In which numbers the model runs; `amp_bf16` keeps weights in float32 and runs under autocast."""
    threads: int = Field(default=1, gt=0)
    """Torch threads of one CPU worker; another number gives other last bits and another address."""
    compile: bool = False
    """Run the image tower through torch.compile: minutes at the start of each worker, for large pools on GPUs."""
    column: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """How its columns begin; default: they are `image_embedding`, `text_embedding` and `clip_score`."""

    version: ClassVar[int] = 3
    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE, CAPTION)
    batch_rows: ClassVar[int] = 4096
    concurrent: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its kind, and how its columns begin where that is chosen."""
        return self.kind if self.column is None else f"{self.kind}_{self.column}"

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where its model is to run on one."""
        return self.device == "cuda"

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """Both embeddings and their cosine."""
        if self.column is None:
            return (IMAGE_EMBEDDING, TEXT_EMBEDDING, CLIP_SCORE)
        of = f"by the model of {self.name!r}"
        return (
            named_column(f"{self.column}_image_embedding", IMAGE_EMBEDDING.type, f"unit-norm image embedding {of}"),
            named_column(f"{self.column}_text_embedding", TEXT_EMBEDDING.type, f"unit-norm caption embedding {of}"),
            named_column(f"{self.column}_clip_score", CLIP_SCORE.type, f"their cosine, {of}", low=-1.001, high=1.001),
        )

    def check(self) -> None:
        """Refuse a model that is not there, and fetch the weights of one that is named by tag.

        Raises:
            RecipeError: see `weights.find_model`; or the weights can neither be found nor downloaded.
        """
        if find_model(self.model, self.pretrained).files is None:
            load(find_model(self.model, self.pretrained))

    def widths(self) -> dict[str, int]:
        """The length of both embeddings, where the model's configuration is here."""
        width = find_model(self.model, self.pretrained).width()
        image, text, _ = self.writes
        return {} if width is None else {image.name: width, text.name: width}

    def identity(self) -> dict[str, object]:
        """The model by the content of its files, and what else decides about bits."""
        return {
            **find_model(self.model, self.pretrained).address(),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "compile": self.compile,
            "rows_at_once": [IMAGES_AT_ONCE[self.device], TEXTS_AT_ONCE[self.device]],
            **ADDRESSED[self.device],
        }

    def open(self) -> Scorer:
        """Load the model; a first call may download it."""
        model = self.load()

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            (images, image_reasons), (texts, text_reasons) = model.embed_pairs(
                batch[IMAGE.name].to_pylist(), batch[CAPTION.name].to_pylist()
            )
            reasons = [image or text for image, text in zip(image_reasons, text_reasons, strict=True)]
            columns = [
                embedding_column(images, image_reasons),
                embedding_column(texts, text_reasons),
                pa.array(_cosines(images, texts, reasons), CLIP_SCORE.type),
                pa.array(reasons, pa.string()),
            ]
            return pa.record_batch(columns, self.returns())

        return score

    def load(self) -> ClipModel:
        """The model behind these settings, to be used outside Ray.

        Raises:
            RecipeError: it is not there or does not load.
        """
        found = find_model(self.model, self.pretrained)
        return load(found, device=self.device, dtype=self.dtype, threads=self.threads, compiled=self.compile)


def embedding_column(embeddings: Floats, reasons: Reasons) -> pa.Array:
    """(n, d) embeddings as list<float16>, null where a reason stands."""
    sound = np.array([reason is None for reason in reasons], bool)
    ends = np.cumsum(sound, dtype=np.int64) * embeddings.shape[1]
    offsets = pa.array(np.concatenate([np.zeros(1, np.int64), ends]).astype(np.int32))
    values = pa.array(embeddings[sound].astype(np.float16).ravel())
    return pa.ListArray.from_arrays(offsets, values, type=IMAGE_EMBEDDING.type, mask=pa.array(~sound))


def _cosines(images: Floats, texts: Floats, reasons: Reasons) -> list[float | None]:
    if all(reasons):
        return [None] * len(reasons)
    dots = np.multiply(images, texts, dtype=np.float64).sum(axis=1)
    return [float(dot) if reason is None else None for dot, reason in zip(dots, reasons, strict=True)]
