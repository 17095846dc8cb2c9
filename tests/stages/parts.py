"""Rows cut into parts, judged by a mapper that packs everything up as if it travelled, last piece first."""

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
from ray import cloudpickle

from stages.rule import Context, Rule, Verdict


def travelling(function: Callable[[Any], Any], pieces: Iterable[Any], /) -> list[Any]:
    """A mapper: function and pieces are copies, and pieces are done in reverse."""
    packed = [cloudpickle.dumps((function, piece)) for piece in pieces]
    done = [cloudpickle.loads(cloudpickle.dumps(_apply(*cloudpickle.loads(each)))) for each in reversed(packed)]
    return done[::-1]


def _apply(function: Callable[[Any], Any], piece: Any) -> Any:
    return function(piece)


def in_parts(rows: pl.DataFrame, n: int, shuffle: int) -> tuple[pl.LazyFrame, ...]:
    """n parts of the rows as shards in some order would make them, each in uid order."""
    mixed = rows.sample(fraction=1, shuffle=True, seed=shuffle)
    return tuple(mixed.gather_every(n, at).sort("uid").lazy() for at in range(n))


def judged_in_parts(rule: Rule, rows: pl.DataFrame, n: int, **facts: Any) -> Verdict:
    """The verdict over n parts."""
    context = Context(facts.pop("seed", 0), parts=in_parts(rows, n, shuffle=n), map=travelling, **facts)
    return rule.judge(rows.sort("uid").lazy(), context)
