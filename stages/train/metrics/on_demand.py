"""Metrics that cost more than a pass over the held-out pairs, by the names that `train.metrics` takes."""

from typing import Literal

OnDemand = Literal["mir", "ima", "mutual_knn", "groups", "style_leakage", "experts"]
COMPARED = (
    "mir", "ima_gap", "mutual_knn", "group_balanced_nll", "worst_group_nll", "spurious_strength", "style_leakage",
)  # fmt: skip
"""What of their numbers arms are held against each other by."""
