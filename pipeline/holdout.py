"""What selection and mixing must never see: the held-out pairs, and pool samples that match them."""

import numpy as np
import polars as pl

from pipeline.table import ScoreTable
from schemas.columns import GREY_DEVIATION, PHASH
from schemas.tables import EVAL_ROLE, POOL_ROLE, TARGET_ROLE
from stages.hamming import closest, similarity
from stages.noise import uniform_noise

HELD_OUT_SHARE = 0.2
MATCH_DISTANCE = 4
"""Hamming distance of perceptual hashes up to which a pool image counts as an evaluation image."""
MIN_DEVIATION = 4.0
"""Grey levels; flatter images share hashes without being alike."""


def held_out(table: ScoreTable, sound: pl.DataFrame) -> pl.DataFrame:
    """(uid) of the held-out samples: the eval shards, or a fifth of the target by hash of the image's content.

    The hash takes the image, not the uid, so that twins fall on one side.
    """
    recipe = table.resolved.recipe
    if recipe.train is None:
        return sound.head(0).select("uid")
    if recipe.train.eval is not None:
        return sound.filter(pl.col("role") == EVAL_ROLE).select("uid")
    target = sound.filter(pl.col("role") == TARGET_ROLE)
    noise = uniform_noise(target["image_hash"].to_list(), recipe.seed, "held out")
    return target.filter(pl.Series(noise < HELD_OUT_SHARE)).select("uid")


def matching(table: ScoreTable, sound: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """(uid, duplicate_of, similarity) of pool samples whose image is a held-out one: equal bytes, or close hashes.

    Similarity is 1 for equal bytes, else the share of equal bits. Without a perceptual hash in the recipe, and of flat
    images, only equal bytes are found.
    """
    outside = sound.filter(pl.col("role") == POOL_ROLE)
    inside = sound.join(held, on="uid", how="semi")
    first = inside.group_by("image_hash").agg(pl.col("uid").min().alias("duplicate_of"))
    same = outside.join(first, on="image_hash").select("uid", "duplicate_of", pl.lit(1.0).alias("similarity"))
    written = {field.name for stage in table.resolved.stages for field in stage.writes}
    if not {PHASH.name, GREY_DEVIATION.name} <= written or inside.is_empty():
        return same.sort("uid")
    close = _close(_hashes(table, outside), _hashes(table, inside))
    return pl.concat([same, close.join(same, on="uid", how="anti")]).sort("uid")


def _hashes(table: ScoreTable, samples: pl.DataFrame) -> pl.DataFrame:
    columns = [PHASH.name, GREY_DEVIATION.name]
    frames = [table.scores(role, columns) for role in samples["role"].unique().sort()]
    if not frames:
        return pl.DataFrame(schema={"uid": pl.String, PHASH.name: pl.UInt64})
    usable = pl.col(PHASH.name).is_not_null() & (pl.col(GREY_DEVIATION.name) >= MIN_DEVIATION)
    hashes = pl.concat(frames).filter(usable).select("uid", PHASH.name)
    return hashes.join(samples.lazy().select("uid"), on="uid", how="semi").sort("uid").collect()


def _close(outside: pl.DataFrame, inside: pl.DataFrame) -> pl.DataFrame:
    place, distance = closest(outside[PHASH.name].to_numpy(), inside[PHASH.name].to_numpy(), MATCH_DISTANCE)
    found = np.flatnonzero(place >= 0)
    partners = {"duplicate_of": inside["uid"].gather(place[found]), "similarity": similarity(distance[found])}
    return pl.DataFrame({"uid": outside["uid"].gather(found), **partners})
