"""All captions of a sample: its own, and those of samples that a rule merged into it."""

import polars as pl

from pipeline.select import Selected
from schemas.columns import CAPTION, CAPTIONS
from schemas.tables import POOL_ROLE


def all_captions(chosen: Selected, uids: pl.Series) -> pl.DataFrame:
    """(uid, captions) of these samples, in uid order: their own caption, then the merged ones by uid, equal ones once.

    A sample merged into one that was later merged into another brings all it had got.
    """
    merged = [step.verdict.dropped.select("uid", "duplicate_of") for step in chosen.decisions if step.merges_captions]
    wanted = pl.DataFrame({"uid": uids, "root": uids})
    members = pl.concat([wanted, _rooted(merged).join(wanted, on="root", how="semi")])
    captions = chosen.table.scores(POOL_ROLE, [CAPTION.name]).select("uid", CAPTION.name)
    table = members.lazy().join(captions, on="uid", how="left").collect()
    table = table.with_columns((pl.col("uid") != pl.col("root")).alias("is merged")).sort("root", "is merged", "uid")
    filled = table.filter(pl.col(CAPTION.name).fill_null("") != "")
    lists = filled.group_by("root").agg(pl.col(CAPTION.name).unique(maintain_order=True).alias(CAPTIONS.name))
    found = wanted.select("uid").join(lists.rename({"root": "uid"}), on="uid", how="left").sort("uid")
    return found.with_columns(pl.col(CAPTIONS.name).fill_null([]))


def _rooted(merged: list[pl.DataFrame]) -> pl.DataFrame:
    """(uid, root): where captions of each merged sample end up; steps in the order in which they were taken."""
    found = pl.DataFrame(schema={"uid": pl.String, "root": pl.String})
    for step in reversed(merged):
        later = found.rename({"uid": "duplicate_of"})
        moved = step.join(later, on="duplicate_of", how="left")
        found = pl.concat([found, moved.select("uid", pl.coalesce("root", "duplicate_of").alias("root"))])
    return found
