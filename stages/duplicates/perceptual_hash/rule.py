"""The rule: of images whose hashes are close, the preferred one stays."""

from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field

from schemas.columns import GREY_DEVIATION, PHASH
from stages.hamming import Hashes, Places, close_pairs, greedy_partners
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Rule, Verdict, drop_lines

SHOWN_GROUPS = 200
SHOWN_MEMBERS = 20


class NearDuplicateImages(Rule):
    """Drops a row iff a kept row that goes before it is within `max_distance` bits: no chains, no row without witness.

    Order: highest `prefer` first (nulls last), then uid. `duplicate_of` is the first such kept row. Rows whose grey
    pixels deviate by less than `min_deviation` (flat images share hashes without being alike) and rows without a hash
    take no part and stay. Beyond one machine each pair of chunks of the hash is a partition key, pairs found are
    merged, and the pass over them is the same.
    """

    kind: Literal["near_duplicate_images"] = "near_duplicate_images"
    max_distance: int = Field(4, ge=0, le=16)
    """Bits of 64; 4 finds recompressed and resized copies, 10 also finds images that only look alike."""
    min_deviation: float = Field(4.0, ge=0, le=128)
    """Grey levels."""
    prefer: Annotated[str, AfterValidator(numeric_name)] | None = None

    def columns(self) -> tuple[str, ...]:
        """Hash, deviation, and the score that decides who survives."""
        return (PHASH.name, GREY_DEVIATION.name) + ((self.prefer,) if self.prefer else ())

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare all usable hashes.

        Raises:
            RecipeError: `prefer` holds no numbers.
        """
        if self.prefer:
            require_numeric(rows, self.prefer)
        table = rows.select("uid", *self.columns()).collect()
        hashed = table.drop_nulls([PHASH.name, GREY_DEVIATION.name])
        ranked = preferred_first(hashed.filter(pl.col(GREY_DEVIATION.name) >= self.min_deviation), self.prefer)
        hashes = ranked[PHASH.name].to_numpy()
        partners = first_witnesses(hashes, self.max_distance)
        lost = np.flatnonzero(partners >= 0)
        twins = pl.DataFrame(
            {
                "uid": ranked["uid"].gather(lost),
                "duplicate_of": ranked["uid"].gather(partners[lost]),
                "distance": np.bitwise_count(hashes[lost] ^ hashes[partners[lost]]),
            }
        )
        evidence = _evidence(twins) | {"unhashed": len(table) - len(hashed), "flat": len(hashed) - len(ranked)}
        return Verdict(drop_lines(twins, "near_duplicate").sort("uid"), evidence=evidence)


def first_witnesses(hashes: Hashes, max_distance: int) -> Places:
    """(n,) for each row the first kept row within `max_distance` before it, -1 for kept rows.

    Equal hashes are collapsed first, however many there are: they have the same close rows, so all but the first of
    them are dropped, and for the same witness.
    """
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # distinct hashes in the order of their first rows
    group, first = rank[group], np.sort(first)
    witness = greedy_partners(len(first), close_pairs(hashes[first], max_distance))
    kept = np.where(witness < 0, np.arange(len(first)), witness)
    partners: Places = first[kept][group]
    partners[first[witness < 0]] = -1
    return partners


def _evidence(twins: pl.DataFrame) -> dict[str, Any]:
    distances = twins.group_by("distance").len().sort("distance")
    groups = twins.sort("uid").group_by("duplicate_of").agg("uid", "distance")
    groups = groups.with_columns(pl.col("uid").list.len().alias("n"))
    shown = groups.sort("n", "duplicate_of", descending=[True, False]).head(SHOWN_GROUPS)
    return {
        "groups": len(groups),
        "distances": {str(distance): n for distance, n in distances.iter_rows()},
        "largest_groups": [
            {"kept": kept, "dropped": n, "distances": dict(zip(uids[:SHOWN_MEMBERS], found, strict=False))}
            for kept, uids, found, n in shown.iter_rows()
        ],
    }
