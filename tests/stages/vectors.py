"""Small embedding columns for tests."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.columns import CAPTION, CLIP_SCORE, CONTENT_HASH, IMAGE, IMAGE_EMBEDDING, TEXT_EMBEDDING
from stages.stage import Scorer, Stage
from stages.vectors import Vectors, row_dots


def unit(rows: int, width: int, seed: int) -> Vectors:
    """Random unit vectors in half precision."""
    values = np.random.default_rng(seed).normal(size=(rows, width))
    found: Vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    return found


def near(vectors: Vectors, noise: float, seed: int) -> Vectors:
    """The vectors with noise, at unit norm."""
    values = vectors.astype(np.float64) + noise * unit(*vectors.shape, seed)
    found: Vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    return found


def lists(vectors: Vectors) -> pa.Array:
    """As an embedding column."""
    return pa.array([row.tolist() for row in vectors.astype(float)], IMAGE_EMBEDDING.type)


def pairs(images: Vectors, texts: Vectors, *, source: str = "photos", first: int = 0) -> pl.DataFrame:
    """Rows as `learn` gets them, in uid order."""
    numbers = range(first, first + len(images))
    table = pa.table(
        {
            "uid": [f"{number:032x}" for number in numbers],
            "source": [source] * len(images),
            CONTENT_HASH.name: [f"{number * 7919 + 1:016x}{number:016x}" for number in numbers],
            IMAGE_EMBEDDING.name: lists(images),
            TEXT_EMBEDDING.name: lists(texts),
            CLIP_SCORE.name: pa.array(row_dots(images, texts), CLIP_SCORE.type),
        }
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def batch(frame: pl.DataFrame, fields: tuple[pa.Field, ...]) -> pa.RecordBatch:
    """The rows as a scorer gets them."""
    columns = [frame[field.name].to_arrow().cast(field.type) for field in fields]
    return pa.record_batch(columns, pa.schema(fields))


NULL = unit(1, 8, 1)


class Embedder(Stage):
    """Gives every image one vector, and refuses to do it on a GPU that the driver may not have."""

    device: Literal["cpu", "cuda"] = "cuda"
    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION, IMAGE)
    writes: ClassVar[tuple[pa.Field, ...]] = (TEXT_EMBEDDING, IMAGE_EMBEDDING)

    def open(self) -> Scorer:
        """Vectors for images that come alone."""
        assert self.device == "cpu"

        def score(rows: pa.RecordBatch) -> pa.RecordBatch:
            assert len(rows) == 1 and rows["image"].null_count == 0 and rows["caption"].null_count == 1
            columns = [pa.nulls(1, TEXT_EMBEDDING.type), lists(NULL), pa.array(["missing_caption"])]
            return pa.record_batch(columns, self.returns())

        return score
