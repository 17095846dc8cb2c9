"""The rule: of images whose hashes are close, the preferred one stays."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field

from schemas.columns import GREY_DEVIATION, PHASH, PHASH_TURNED
from stages.duplicate_groups import group_evidence
from stages.greedy import greedy_partners, of_copies
from stages.hamming import Distances, Hashes, Places, close_pairs, close_turned_pairs, similarity
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Mapper, Rule, Verdict, drop_lines, in_order


class NearDuplicateImages(Rule):
    """Drops a row iff a kept row that goes before it is within `max_distance` bits: no chains, no row without witness.

    Order: highest `prefer` first (nulls last), then uid. `duplicate_of` is the first such kept row, `similarity` the
    share of equal bits. Rows whose grey pixels deviate by less than `min_deviation` (flat images share hashes without
    being alike) and rows without a hash take no part and stay. Beyond one machine each pair of chunks of the hash is a
    partition key, pairs found are merged, and the pass over them is the same.
    """

    version: ClassVar[int] = 2
    likeness: ClassVar[str] = "share of equal bits: 1 - distance / 64"

    kind: Literal["near_duplicate_images"] = "near_duplicate_images"
    max_distance: int = Field(4, ge=0, le=16)
    """Bits of 64; 4 finds recompressed and resized copies, 10 also finds images that only look alike."""
    min_deviation: float = Field(4.0, ge=0, le=128)
    """Grey levels."""
    turned: bool = False
    """Also find copies that were turned by 90, 180 or 270 degrees or mirrored: the hash of one image as it is with any
    of the eight of the other. Needs `turned: true` of the hash, too."""
    prefer: Annotated[str, AfterValidator(numeric_name)] | None = None

    def columns(self) -> tuple[str, ...]:
        """Hash or hashes, deviation, and the score that decides who survives."""
        return tuple(dict.fromkeys([self._hash(), GREY_DEVIATION.name, *([self.prefer] if self.prefer else [])]))

    def _hash(self) -> str:
        return str((PHASH_TURNED if self.turned else PHASH).name)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare all usable hashes.

        Raises:
            RecipeError: `prefer` holds no numbers.
        """
        if self.prefer:
            require_numeric(rows, self.prefer)
        table = rows.select("uid", *self.columns()).collect()
        hashed = table.drop_nulls([self._hash(), GREY_DEVIATION.name])
        ranked = preferred_first(hashed.filter(pl.col(GREY_DEVIATION.name) >= self.min_deviation), self.prefer)
        partners, distances = first_witnesses(_matrix(ranked[self._hash()]), self.max_distance, context.map)
        lost = np.flatnonzero(partners >= 0)
        twins = pl.DataFrame(
            {
                "uid": ranked["uid"].gather(lost),
                "duplicate_of": ranked["uid"].gather(partners[lost]),
                "similarity": similarity(distances[lost]),
            }
        )
        evidence = group_evidence(twins) | {
            "distances": _counts(distances[lost]),
            "unhashed": len(table) - len(hashed),
            "flat": len(hashed) - len(ranked),
        }
        return Verdict(drop_lines(twins, "near_duplicate").sort("uid"), evidence=evidence)


def first_witnesses(hashes: Hashes, max_distance: int, mapper: Mapper = in_order) -> tuple[Places, Distances]:
    """(n,) for each row the first kept row within `max_distance` before it, -1 for kept rows; (n,) how far that one is.

    Equal hashes are collapsed first, however many there are.

    Args:
        hashes: (n, v), the first of each row is that of the image as it is.
        max_distance: in bits.
        mapper: where pairs of chunks are compared.
    """
    _, first, group = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # distinct hashes in the order of their first rows
    group, first = rank[group], np.sort(first)
    distinct = hashes[first]
    turned = hashes.shape[1] > 1
    pairs = (close_turned_pairs if turned else close_pairs)(
        distinct if turned else distinct[:, 0], max_distance, mapper
    )
    witness = greedy_partners(len(first), pairs)
    apart = np.zeros(len(first), np.uint8)  # of copies from their first
    lost = np.flatnonzero(witness >= 0)
    codes = pairs.second * len(first) + pairs.first
    apart[lost] = pairs.distance[np.searchsorted(codes, lost * len(first) + witness[lost])]
    return of_copies(first, group, witness), apart[group]


def _matrix(column: pl.Series) -> Hashes:
    """(n, 1) of a column of hashes, (n, v) of one of lists."""
    numbers = column.explode() if column.dtype == pl.List else column
    return numbers.to_numpy().astype(np.uint64, copy=False).reshape(len(column), -1 if len(column) else 1)


def _counts(distances: Distances) -> dict[str, Any]:
    found, counts = np.unique(distances, return_counts=True)
    return {str(distance): n for distance, n in zip(found.tolist(), counts.tolist(), strict=True)}
