"""What is known of each part of the rows before parts are compared: distinct captions and their hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts import MinHash
from stages.near_texts.pairs import Hashed
from stages.near_texts.shingles import Integers
from stages.normal_form import normal_form

BLOCK_ROWS = 1 << 16
"""Captions that are Python objects at a time."""
LONGEST = 1 << 20
"""Of longer captions so many leading characters count."""


@dataclass(frozen=True)
class Sketch:
    """Rows, and the distinct captions they have."""

    rows: pl.DataFrame
    """As given but for the caption, and only rows that have one; `text` is its place among the texts."""
    texts: pl.Series
    """Distinct normal forms, none empty."""
    hashed: Hashed


def sketch(part: pl.DataFrame, column: str, how: MinHash) -> Sketch:
    """Normal forms, each distinct one hashed once."""
    normal = [pl.Series([], dtype=pl.String)]
    normal += [pl.Series(list(map(_normal, block)), dtype=pl.String) for block in _lists(part[column])]
    rows = part.drop(column).with_columns(pl.concat(normal).alias("text")).filter(pl.col("text") != "")
    texts, place = distinct(rows["text"])
    hashed = [how.hashed(block) for block in _lists(texts)] or [how.hashed([])]
    return Sketch(rows.with_columns(pl.Series("text", place)), texts, Hashed.joined(hashed))


def together(sketches: Sequence[Sketch]) -> Sketch:
    """One sketch of all parts."""
    if len(sketches) == 1:
        return sketches[0]
    texts, place = distinct(pl.concat([each.texts for each in sketches]))
    first = np.zeros(len(texts), np.int64)
    first[place[::-1]] = np.arange(len(place))[::-1]
    hashed = Hashed.joined([each.hashed for each in sketches]).at(first)
    rows, offset = [], 0
    for each in sketches:
        own = place[offset : offset + len(each.texts)][each.rows["text"].to_numpy()]
        rows.append(each.rows.with_columns(pl.Series("text", own)))
        offset += len(each.texts)
    return Sketch(pl.concat(rows), texts, hashed)


def distinct(texts: pl.Series) -> tuple[pl.Series, Integers]:
    """The distinct texts in the order in which they first occur, and each text's place among them."""
    frame = texts.alias("text").to_frame().with_row_index("row")
    first = frame.select(pl.col("row").first().over("text"))["row"].to_numpy().astype(np.int64)
    new: npt.NDArray[np.bool_] = first == np.arange(len(first))
    return texts.filter(pl.Series(new)), np.cumsum(new)[first] - 1


def _normal(caption: str | None) -> str:
    return normal_form(caption[:LONGEST]) if caption else ""


def _lists(texts: pl.Series) -> Iterator[list[str]]:
    for at in range(0, len(texts), BLOCK_ROWS):
        yield texts.slice(at, BLOCK_ROWS).to_list()
