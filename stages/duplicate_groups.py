"""Who was dropped for whom, summed up for the record and the report."""

from typing import Any

import numpy as np
import polars as pl

SHOWN_GROUPS = 200
SHOWN_MEMBERS = 20
SIMILARITIES = np.linspace(0, 1, 21)


def group_evidence(twins: pl.DataFrame) -> dict[str, Any]:
    """Counts, a histogram of similarities and the largest groups of verdict lines (uid, duplicate_of, similarity)."""
    groups = twins.sort("uid").group_by("duplicate_of").agg("uid", "similarity")
    groups = groups.with_columns(pl.col("uid").list.len().alias("n"))
    shown = groups.sort("n", "duplicate_of", descending=[True, False]).head(SHOWN_GROUPS)
    counts = np.histogram(twins["similarity"].clip(0, 1).to_numpy(), SIMILARITIES)[0]
    return {
        "groups": len(groups),
        "similarities": {f"{low:.2f}": n for low, n in zip(SIMILARITIES[:-1], counts.tolist(), strict=True) if n},
        "largest_groups": [
            {"kept": kept, "dropped": n, "similarities": dict(zip(uids[:SHOWN_MEMBERS], found, strict=False))}
            for kept, uids, found, n in shown.iter_rows()
        ],
    }
