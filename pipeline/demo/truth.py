"""What a run decided, against what was planted: pure comparisons of a ledger and scores with `truth.parquet`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.demo.plants import CORRUPT, EXACT, MISMATCHED, NEAR, NONE
from schemas.errors import CuveeError
from schemas.tables import DROPPED, KEPT, POOL_ROLE, QUARANTINED

MATCHED = (NONE, EXACT, NEAR)
"""Plants whose captions are true."""


def compare_with_truth(ledger: pl.DataFrame, scores: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    """Figures on every kind of plant; None where nothing of the kind was planted or decided.

    Args:
        ledger: `schemas.tables.LEDGER`; rows of other roles than the pool are left out.
        scores: `uid` and `clip_score`.
        truth: `truth.parquet`, one line per sample of the pool.

    Raises:
        CuveeError: the ledger's samples are not the truth's.
    """
    rows = joined(ledger, truth)
    scored = rows.join(scores.select("uid", "clip_score"), on="uid", how="left")
    corrupt, quarantined = rows["plant"] == CORRUPT, rows["status"] == QUARANTINED
    return {
        "samples": rows.height,
        "mismatched_auc": caption_auc(scored),
        "exact_duplicates": copies_found(rows, EXACT, "exact_duplicates"),
        "near_duplicates": copies_found(rows, NEAR, "near_duplicate_images"),
        "corrupt": _rates(int((corrupt & quarantined).sum()), int(corrupt.sum()), int(quarantined.sum())),
        "pool_by_plant": _counts(rows),
        "kept_by_plant": _counts(rows.filter(pl.col("status") == KEPT)),
    }


def joined(ledger: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """The pool's ledger rows with `plant` and `group`: a copy shares its group with what it was made from.

    Raises:
        CuveeError: a sample stands in only one of the two tables.
    """
    pool = ledger.filter(pl.col("role") == POOL_ROLE)
    name = pl.concat_str("source", pl.lit("/"), "key")
    originals = truth["duplicate_of"].drop_nulls().unique().implode()
    group = pl.col("duplicate_of").fill_null(pl.when(name.is_in(originals)).then(name))
    facts = truth.select("source", "key", "plant", group.alias("group"))
    rows = pool.join(facts, on=["source", "key"], how="inner")
    if not rows.height == pool.height == truth.height:
        raise CuveeError(
            f"the ledger holds {pool.height} samples of the pool, the truth {truth.height}, {rows.height} are in both; "
            "compare a run with the truth of the corpus it read"
        )
    return rows


def caption_auc(rows: pl.DataFrame) -> float | None:
    """Chance that a true caption's `clip_score` is above a mismatched one's, ties counting half; nulls are left out."""
    scored = rows.filter(pl.col("clip_score").is_not_null())
    right = scored.filter(pl.col("plant").is_in(MATCHED))["clip_score"].to_numpy()
    wrong = scored.filter(pl.col("plant") == MISMATCHED)["clip_score"].to_numpy()
    return area_under_curve(right, wrong)


def area_under_curve(above: npt.NDArray[np.floating], below: npt.NDArray[np.floating]) -> float | None:
    """P(a > b) + P(a = b) / 2 over all pairs, by the Mann-Whitney rank sum; None when either side is empty."""
    if not len(above) or not len(below):
        return None
    ordered = np.sort(below)
    smaller = np.searchsorted(ordered, above, "left")
    not_larger = np.searchsorted(ordered, above, "right")
    return float((smaller + not_larger).sum() / (2 * len(above) * len(below)))


def copies_found(rows: pl.DataFrame, plant: str, rule: str) -> dict[str, float | int | None]:
    """Recall and precision of a duplicate rule, by group.

    Any one sample of a group may survive, so a group of g asks for g - 1 drops. A drop is right when it and the sample
    it is said to double stand in the same group of this plant, and the group does not ask for fewer drops.
    """
    groups = rows.filter(pl.col("plant") == plant)["group"].unique().implode()
    members = rows.filter(pl.col("group").is_in(groups))
    expected = members.group_by("group").agg((pl.len() - 1).alias("expected"))
    partner = rows.select(pl.col("uid").alias("duplicate_of"), pl.col("group").alias("partner_group"))
    dropped = rows.filter((pl.col("status") == DROPPED) & (pl.col("decided_by") == rule))
    right = dropped.join(partner, on="duplicate_of").filter(pl.col("group") == pl.col("partner_group"))
    counts = right.group_by("group").len("drops").join(expected, on="group")
    hits = int(counts.select(pl.min_horizontal("drops", "expected").sum()).item() or 0)
    return _rates(hits, int(expected["expected"].sum()), dropped.height)


def _rates(hits: int, planted: int, decided: int) -> dict[str, float | int | None]:
    return {
        "recall": hits / planted if planted else None,
        "precision": hits / decided if decided else None,
        "planted": planted,
        "decided": decided,
    }


def _counts(rows: pl.DataFrame) -> dict[str, int]:
    return dict(sorted(rows.group_by("plant").len().iter_rows()))
