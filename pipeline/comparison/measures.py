"""What is measured of every selection: against the target, against the others, and against chance."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import polars as pl

from pipeline.comparison.captions import divergences
from pipeline.comparison.contest import Contest, Mask
from pipeline.comparison.embeddings import embedding_measures
from pipeline.comparison.selections import POOL, selections_of
from pipeline.mix import natural_shares
from pipeline.resolve import Resolved
from schemas.columns import IMAGE_EMBEDDING
from stages.measures.overlap import chance, jaccard

VERSION = 2
"""Raise it when the same choices are measured as other numbers."""
LEVEL = 0.95
LENGTH = "length_shift"


def measure(contest: Contest) -> dict[str, Any]:
    """JSON values: per selection its measures, where random draws lie, overlaps, and what was left out and why."""
    selections = selections_of(contest)
    found = {name: _counted(contest, mask) for name, mask in zip(selections.names, selections.masks, strict=True)}
    more: list[Sequence[Mapping[str, Any]]] = [divergences(selections)] if selections.yardsticks else []
    more += [embedding_measures(selections)] if _has_embeddings(contest.chosen.table.resolved) else []
    for measures in more:
        for name, values in zip(selections.names, measures, strict=True):
            found[name] |= values
    draws = [found[choice.name] for choice in contest.draws]
    numbers = [name for name in draws[0] if all(type(draw[name]) is float for draw in draws)]
    spread = {name: interval([draw[name] for draw in draws]) for name in numbers}
    names = [choice.name for choice in contest.choices]
    common = jaccard(np.array([choice.kept for choice in contest.choices])).tolist()
    return {
        "pool": found[POOL],
        "measures": {name: found[name] | {"against_random": _held_against(found[name], spread)} for name in names},
        "random": {"draws": len(draws), "level": LEVEL, "intervals": spread, "overlap": _expected(contest)},
        "overlap": {one: dict(zip(names, row, strict=True)) for one, row in zip(names, common, strict=True)},
        "measured_on": {name: len(uids) for name, uids in selections.yardsticks.items()},
        "notes": _left_out(contest.chosen.table.resolved, found[POOL]),
    }


def _counted(contest: Contest, mask: Mask) -> dict[str, Any]:
    """What needs nothing but captions and sources."""
    kept, tokens = int(mask.sum()), int(contest.tokens[mask].sum())
    sources = dict(contest.chosen.survivors.filter(pl.Series(mask)).group_by("source").len().iter_rows())
    everywhere = contest.chosen.survivors["source"].unique()
    mean = tokens / kept if kept else 0.0
    shift = mean - int(contest.tokens.sum()) / len(contest.tokens)
    shares = natural_shares({name: sources.get(name, 0) for name in everywhere}) if kept else {}
    return {"kept": kept, "tokens": tokens, "mean_tokens": mean, LENGTH: shift, "sources": shares}


def _has_embeddings(resolved: Resolved) -> bool:
    return any(field.name == IMAGE_EMBEDDING.name for stage in resolved.stages for field in stage.writes)


def _left_out(resolved: Resolved, pool: Mapping[str, Any]) -> list[str]:
    notes = []
    if resolved.recipe.target is None:
        notes.append("compare: no KL and no distance to the target, for the recipe names no target")
    elif resolved.recipe.train is None:
        notes.append("compare: held against the target that selectors have seen; with `train` a part of it is held out")
    if resolved.recipe.target is not None and "kl" not in pool:
        notes.append("compare: no KL, for captions of the pool and of the target share no n-gram")
    if not _has_embeddings(resolved):
        notes.append(f"compare: no diversity and no distance: no score step writes {IMAGE_EMBEDDING.name!r}")
    return notes


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, and where one more draw lies with a probability of 95 %: mean +- t(0.975, n - 1) s sqrt(1 + 1 / n)."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    half = float(t.ppf(0.5 + LEVEL / 2, n - 1)) * float(np.std(values, ddof=1)) * sqrt(1 + 1 / n)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _held_against(measures: Mapping[str, Any], spread: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    return {
        name: "below" if measures[name] < ends["low"] else "above" if measures[name] > ends["high"] else "within"
        for name, ends in spread.items()
        if measures[name] is not None
    }


def _expected(contest: Contest) -> float:
    """The Jaccard index of two random draws."""
    draw = contest.draws[0]
    return chance(int(draw.kept.sum()), len(draw.kept))
