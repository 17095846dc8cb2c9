"""Which split a drawn sample goes to: by image, so that repeats, twins and near copies of one image stay together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.export.draws import Draws
from pipeline.holdout import MATCH_DISTANCE
from schemas.columns import PHASH
from schemas.errors import CuveeError
from schemas.tables import POOL_ROLE
from stages.hamming import close_pairs
from stages.noise import uniform_noise


def assigned(draws: Draws, drawn: pl.DataFrame) -> pl.Series:
    """(n,) the split of each drawn sample, "" where the export has only one part.

    A group is the images joined by equal bytes or, where the recipe scores a perceptual hash, by a chain of hashes
    within `MATCH_DISTANCE` bits. It goes where (seed, smallest image hash of the group) falls among the shares, so
    neither keys nor sources matter, and a part's size differs from its share as chance has it.

    Args:
        draws: what is exported.
        drawn: its samples, with `uid` and `image_hash`.

    Raises:
        CuveeError: a part gets no sample.
    """
    shares = draws.settings.split or {}
    if len(shares) < 2:
        return pl.Series("split", [""] * len(drawn), pl.String)
    images = _images(draws, drawn)
    names = sorted(shares)
    groups = images.with_columns(_groups(images)).with_columns(pl.col("image_hash").min().over("group").alias("name"))
    edges = np.cumsum([shares[name] for name in names])[:-1]
    part = np.searchsorted(edges, uniform_noise(groups["name"].to_list(), draws.seed, "export split"), side="right")
    placed = groups.select("image_hash").with_columns(pl.Series("split", [names[number] for number in part], pl.String))
    split = drawn.join(placed, on="image_hash", how="left", maintain_order="left")["split"]
    if empty := sorted(set(names) - set(split)):
        raise CuveeError(
            f"split {empty[0]!r} (share {shares[empty[0]]:g}) gets none of {len(drawn)} samples "
            f"in {groups['name'].n_unique()} groups of images: draw more samples, or raise its share"
        )
    return split


def realised(samples: pl.DataFrame, shares: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Per split, the share that was asked for and what came of it; empty without a split.

    Args:
        samples: the exported ones, with `split` and `uid`.
        shares: split -> its share of the images.
    """
    counts = samples.filter(pl.col("split") != "").group_by("split")
    found = counts.agg(pl.len(), pl.col("uid").n_unique().alias("distinct")).sort("split")
    return {
        split: {"share": shares[split], "samples": number, "distinct_samples": distinct}
        for split, number, distinct in found.iter_rows()
    }


def _images(draws: Draws, drawn: pl.DataFrame) -> pl.DataFrame:
    """(image_hash, phash) of every image once, in order; phash is null without a perceptual hash in the recipe."""
    images = drawn.select("uid", "image_hash")
    written = {field.name for stage in draws.table.resolved.stages for field in stage.writes}
    if PHASH.name in written:
        hashes = draws.table.scores(POOL_ROLE, [PHASH.name]).select("uid", PHASH.name)
        images = images.lazy().join(hashes, on="uid", how="left").collect()
    else:
        images = images.with_columns(pl.lit(None, pl.UInt64).alias(PHASH.name))
    return images.group_by("image_hash").agg(pl.col(PHASH.name).drop_nulls().first()).sort("image_hash")


def _groups(images: pl.DataFrame) -> pl.Series:
    """(n,) a number that close images share."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    hashed = np.flatnonzero(images[PHASH.name].is_not_null().to_numpy())
    hashes, which = np.unique(images[PHASH.name].drop_nulls().to_numpy(), return_inverse=True)
    pairs = close_pairs(hashes.astype(np.uint64), MATCH_DISTANCE)
    n, distinct = len(images), len(hashes)
    left: npt.NDArray[np.int64] = np.concatenate([hashed, n + pairs.first])
    right: npt.NDArray[np.int64] = np.concatenate([n + which, n + pairs.second])
    edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n + distinct, n + distinct))
    return pl.Series("group", connected_components(edges, directed=False)[1][:n])
