"""From rows of the score table to the points that transports run between."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.errors import CuveeError
from stages.fit import Array
from stages.rule import Context
from stages.transport.features import features, same_width, whole
from stages.transport.sample import sample, sample_of_parts
from stages.transport.whitening import Whitening, fit_whitening
from stages.vectors import Vectors

SLICE_ROWS = 16_384


@dataclass(frozen=True)
class Space:
    """The embedding columns, side by side or whitened together."""

    columns: tuple[str, ...]
    width: int
    """Of a point."""
    whitening: Whitening | None = None

    @property
    def joined(self) -> int:
        """What squared distances are divided by: costs stay in [0, 4]."""
        return 1 if self.whitening else len(self.columns)

    def __call__(self, table: pl.DataFrame, who: str) -> Vectors:
        """(n, d) points of rows that have all columns.

        Raises:
            CuveeError: embeddings of another width than the target's.
        """
        if table.is_empty():
            return np.zeros((0, self.width), np.float16)
        rows = same_width(features(table, self.columns), self.width, who)
        return self.whitening(rows) if self.whitening else rows

    def slices(self, part: pl.DataFrame, who: str) -> Iterator[tuple[pl.Series, Vectors]]:
        """(uids, points) of the part's rows that have all columns, a few thousand at a time."""
        for piece in whole(part, self.columns).iter_slices(SLICE_ROWS):
            yield piece["uid"], self(piece, who)

    def arrays(self) -> dict[str, Array]:
        """What a fit keeps of it."""
        found = self.whitening
        return {} if found is None else {"whitening_mean": found.mean, "whitening_inverse": found.inverse}


def known_space(columns: tuple[str, ...], width: int, arrays: dict[str, Array]) -> Space:
    """The space of a fit."""
    if "whitening_mean" not in arrays:
        return Space(columns, width)
    return Space(columns, width, Whitening(arrays["whitening_mean"], arrays["whitening_inverse"]))


def learned_space(columns: tuple[str, ...], target: pl.DataFrame, proxy: pl.DataFrame, whiten: float | None) -> Space:
    """The space of the target's rows, whitened by the proxy's spread with shrinkage `whiten`."""
    width = features(target, columns).shape[1]
    plain = Space(columns, width)
    return plain if whiten is None else Space(columns, width, fit_whitening(plain(proxy, "the pool"), whiten))


def target_sample(context: Context, columns: Sequence[str], count: int, who: str) -> pl.DataFrame:
    """At most `count` of the target's rows that have all columns, by hash.

    Raises:
        CuveeError: there is no target, or no such row in it.
    """
    if context.target is None:
        raise CuveeError(f"{who} needs a target and got none; add `target: {{shards: ...}}` to the recipe")
    table = context.target.select("uid", *columns).collect()
    found = sample(whole(table, columns), count, context.seed, f"{who} target")
    if found.is_empty():
        raise CuveeError(f"none of the target's {len(table)} samples has {' and '.join(columns)}; {who} needs one")
    return found


def pool_sample(
    rows: pl.LazyFrame, context: Context, columns: Sequence[str], count: int, who: str, proxy: str | None = None
) -> pl.DataFrame:
    """At most `count` rows that stand for the pool, which has one, or for the reference named `proxy`, by hash.

    Raises:
        CuveeError: no row of the reference has all columns.
    """
    purpose = f"{who} proxy"
    if proxy is None:
        found = sample_of_parts(rows, context, columns, count, purpose)
    else:
        table = context.references[proxy].select("uid", *columns).collect()
        found = sample(whole(table, columns), count, context.seed, purpose)
    if found.is_empty():
        raise CuveeError(f"no row of reference {proxy!r} has {' and '.join(columns)}; {who} needs what stages write")
    return found


def each_slice(
    rows: pl.LazyFrame, context: Context, space: Space, values: Callable[[Vectors], pl.DataFrame]
) -> pl.DataFrame:
    """(uid, *values) of every row of the pool that has all columns, part by part; in uid order."""

    def of_part(part: pl.DataFrame) -> pl.DataFrame:
        found = [values(points).select(uids.alias("uid"), pl.all()) for uids, points in space.slices(part, "the pool")]
        empty = values(np.zeros((0, space.width), np.float16)).select(pl.Series("uid", [], pl.String), pl.all())
        return pl.concat([empty, *found])

    return pl.concat(context.each_part(rows, of_part)).sort("uid")
