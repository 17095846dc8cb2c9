"""Visualness of a text, after TIP-CLIP (arXiv:2305.10434): 1 - cos(text, NULL), from the text's embedding alone.

TIP-CLIP fine-tunes CLIP so that sentences which nothing can be seen of ("thanks for your order") match one common NULL
image, an image of random pixels, and all others their own. Here the NULL image is embedded by the model that embedded
the captions, as it is: without that fine-tuning the score is a much weaker sign; see bench/RESULTS.md before relying on
it. Per caption; TIP-CLIP also scores single sentences.
"""

import io
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from schemas.columns import CAPTION, IMAGE, IMAGE_EMBEDDING, TEXT_EMBEDDING, VISUALNESS
from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit
from stages.fitted_stage import Examples, FittedStage
from stages.stage import Scorer, Stage
from stages.vectors import dots, reasons, scored, vectors, whole_rows

SIDE_PX = 224
PLAIN = {"device": "cpu", "compile": False, "dtype": "fp32"}
"""How the NULL image is embedded where captions are on a GPU: compiling for one image takes minutes, and half precision
is slow on a CPU or not to be had."""


@cache
def null_image() -> bytes:
    """A PNG of uniformly random pixels, always the same ones."""
    from PIL import Image

    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Visualness(FittedStage):
    """1 less the cosine of the caption and the NULL image: higher, the more the text speaks of what can be seen.

    Learned: the NULL image's embedding, by the stage that writes the text embeddings; no sample has a part in it.
    """

    version: ClassVar[int] = 2
    kind: Literal["visualness"] = "visualness"

    reads: ClassVar[tuple[pa.Field, ...]] = (TEXT_EMBEDDING,)
    writes: ClassVar[tuple[pa.Field, ...]] = (VISUALNESS,)
    learns_from: ClassVar[tuple[str, ...]] = ()
    batch_rows: ClassVar[int] = 4096

    def learn(self, examples: Examples) -> Fit:
        """Embed the NULL image.

        Raises:
            RecipeError: what writes the text embeddings embeds no images.
            CuveeError: the model has no embedding for it.
        """
        found = embedded(examples.writers[TEXT_EMBEDDING.name], null_image())
        if not found.is_valid:
            raise CuveeError("the model gave no embedding of an image of random pixels; is it trained?")
        return Fit({"null": vectors(pa.array([found.as_py()], IMAGE_EMBEDDING.type))})

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer."""
        null = fit.arrays["null"]

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            whole = whole_rows([batch[TEXT_EMBEDDING.name]])
            texts = vectors(batch[TEXT_EMBEDDING.name].filter(pa.array(whole)), null.shape[1])
            values = 1 - dots(texts, null)[:, 0]
            return pa.record_batch([scored(values, whole, VISUALNESS.type), reasons(whole)], self.returns())

        return score


def embedded(writer: Stage, image: bytes) -> pa.Scalar:
    """The image embedding that another stage gives an image without a caption; by the CPU, where it has a choice.

    Raises:
        RecipeError: it writes no image embedding, or reads more than image and caption.
    """
    if IMAGE_EMBEDDING not in writer.writes or not {*writer.reads} <= {IMAGE, CAPTION}:
        raise RecipeError(
            f"`text_embedding` is written by {writer.kind!r}; expected a step that embeds images and captions"
        )
    plain = PLAIN if getattr(writer, "device", "cpu") != "cpu" else {"compile": False}
    writer = writer.model_copy(
        update={name: value for name, value in plain.items() if name in type(writer).model_fields}
    )
    given = {IMAGE: [image], CAPTION: [None]}
    columns = [pa.array(given[field], field.type) for field in writer.reads]
    return writer.open()(pa.record_batch(columns, pa.schema(writer.reads)))[IMAGE_EMBEDDING.name][0]
