"""Visualness: one less the cosine with an image of nothing, embedded by the captions' own model."""

import io
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.columns import CAPTION, TEXT_EMBEDDING
from schemas.errors import RecipeError
from stages.alignment.visualness import Visualness, null_image
from stages.fitted_stage import Examples
from stages.stage import Scorer, Stage
from tests.stages.vectors import NULL, Embedder, batch, pairs, unit


class Compiled(Embedder):
    """Has more settings that are meant for a GPU."""

    dtype: Literal["fp32", "bf16"] = "bf16"
    compile: bool = True
    note: str = "gpu"

    def open(self) -> Scorer:
        """Not as on a GPU."""
        assert (self.dtype, self.compile) == ("fp32" if self.note == "gpu" else "bf16", False)
        return super().open()


class TextOnly(Stage):
    """Embeds no images."""

    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION,)
    writes: ClassVar[tuple[pa.Field, ...]] = (TEXT_EMBEDDING,)


def test_one_less_the_cosine_with_the_null_image() -> None:
    stage = Visualness()
    fit = stage.learn(Examples({}, 0, {"text_embedding": Embedder(kind="embeds")}))
    texts = np.concatenate([NULL, -NULL, unit(5, 8, 2)])
    found = stage.open_with(fit, "")(batch(pairs(texts, texts), stage.reads))["visualness"].to_numpy()
    assert found == pytest.approx(1 - (texts.astype(np.float64) @ NULL[0].astype(np.float64)), abs=1e-6)
    assert found[:2] == pytest.approx([0, 2], abs=2e-3)


def test_settings_for_a_gpu_stay_there() -> None:
    for writer in (Compiled(kind="embeds"), Compiled(kind="embeds", device="cpu", note="cpu")):
        Visualness().learn(Examples({}, 0, {"text_embedding": writer}))


def test_the_null_image_is_noise_and_always_the_same() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(null_image())))
    assert pixels.shape == (224, 224, 3) and abs(pixels.mean() - 127.5) < 1 and 73 < pixels.std() < 75
    assert pixels[0, 0].tolist() == np.random.Generator(np.random.Philox(0)).integers(0, 256, 3, np.uint8).tolist()


def test_a_writer_without_an_image_tower_is_refused() -> None:
    with pytest.raises(RecipeError, match="`text_embedding` is written by 'text_only'; expected a step that embeds"):
        Visualness().learn(Examples({}, 0, {"text_embedding": TextOnly(kind="text_only")}))
