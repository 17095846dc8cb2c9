"""Everything that is measured: the pool, the selectors' choices, random draws; and the target they are held against."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.comparison.contest import Contest
from pipeline.select import Selected, only, survivors
from pipeline.tasks import Stream
from schemas.tables import TARGET_ROLE

Result = TypeVar("Result")
Number = TypeVar("Number", float, float | None)
Masks = npt.NDArray[np.bool_]

POOL = "the pool"
"""Name of the selection that keeps every survivor; no selector can be called so."""


@dataclass(frozen=True)
class Selections:
    """Sets of the same rows."""

    chosen: Selected
    names: tuple[str, ...]
    masks: Masks
    """(m, n) which of the survivors, in uid order, each selection keeps."""
    yardsticks: dict[str, pl.DataFrame]
    """Name -> (uid) of target samples: those that no selector has seen, if there are any, and those they have."""

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return self.chosen.table.resolved.recipe.seed

    def columns(self) -> list[str]:
        """Names of the columns of masks that `each_part` adds."""
        return [f"selection {number}" for number in range(len(self.masks))]

    def rows(self, column: str) -> pl.LazyFrame:
        """(uid, source, column) of the survivors."""
        return survivors(self.chosen, [column])[0]

    def target(self, yardstick: str, column: str) -> pl.DataFrame:
        """(uid, source, column) of the target samples of a yardstick, in uid order."""
        scores = self.chosen.table.scores(TARGET_ROLE, [column])
        return only(scores, self.yardsticks[yardstick]).collect().sort("uid")

    def each_part(self, column: str, function: Callable[[pl.DataFrame], Result]) -> Iterator[Result]:
        """`function` of the survivors' (uid, source, column, masks), as a whole or in parts where the pool is large.

        A part's result may be large, and comes when it is asked for: add them up one by one.
        """
        masks = dict(zip(self.columns(), self.masks, strict=True))
        table = pl.DataFrame({"uid": self.chosen.survivors["uid"], **masks})
        rows, parts = survivors(self.chosen, [column], table)
        stream: Stream = self.chosen.stream if parts else map
        return stream(lambda part: function(part.collect()), parts or (rows,))


def selections_of(contest: Contest) -> Selections:
    """The pool first, then what the selectors keep, then the random draws."""
    found = (*contest.choices, *contest.draws)
    whole = np.ones(len(contest.chosen.survivors), np.bool_)
    names = (POOL, *(choice.name for choice in found))
    masks = np.array([whole, *(choice.kept for choice in found)])
    return Selections(contest.chosen, names, masks, _yardsticks(contest.chosen))


def _yardsticks(chosen: Selected) -> dict[str, pl.DataFrame]:
    if chosen.target.is_empty():
        return {}
    target = chosen.table.samples.filter(pl.col("role") == TARGET_ROLE).select("uid")
    held = target.join(chosen.held, on="uid", how="semi").sort("uid")
    return ({"held_out": held} if len(held) else {}) | {"seen": chosen.target.sort("uid")}


def by_yardstick(name: str, values: Mapping[str, Sequence[Number]]) -> list[dict[str, Number]]:
    """Per selection {name: by the first yardstick, name_seen: by the second where there are two}."""
    keys = [name, f"{name}_seen"][: len(values)]
    return [dict(zip(keys, row, strict=True)) for row in zip(*values.values(), strict=True)]
