"""Metrics that cost more than a pass over the held-out pairs, by the names that `train.metrics` takes."""

from typing import Literal

OnDemand = Literal["mir", "ima", "mutual_knn", "groups", "style_leakage", "experts"]
