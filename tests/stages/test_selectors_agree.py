"""What every selector promises, held against every selector there is: parts, orders, pins, budgets and nulls."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from ray import cloudpickle

from schemas.columns import IMAGE_EMBEDDING, TEXT_EMBEDDING
from schemas.errors import CuveeError
from stages.budget import TOKENS
from stages.kinds import kinds
from stages.noise import uniform_noise
from stages.rule import Context, Rule, Verdict
from stages.selector import Selector
from tests.stages.vectors import lists, near, unit

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "best": [{"column": "clip_score"}, {"column": "words", "lowest": True}],
    "deft": [{"clusters": 4}, {"embedding": "text_embedding", "easy": 1.0, "base": 0.0}],
    "dsir": [{}, {"mode": "exact", "min_length": 1}],
    "got_d": [{"atoms": 20, "batches": 2, "rounds": 2}],
    "longest_caption": [{}],
    "m4": [
        {
            "sensitive": [{"column": "person", "value": "one", "share": 0.5}],
            "labels": [{"column": "concept_dog", "at_least": 0.5}, {"column": "loud", "value": True}],
        }
    ],
    "odis": [{"scores": ["clip_score", "words", "normsim_2"]}],
    "random": [{}],
    "sus_x": [{"classes": ["dog", "cat"]}],
    "tsds": [{"examples": 16, "neighbours": 100, "density_neighbours": 20}],
}
"""Per kind some settings beside the budget, over the columns of `samples`."""
CASES = [(kind, settings) for kind, found in SETTINGS.items() for settings in found]
BUDGETS: list[dict[str, Any]] = [{"samples": 17}, {"fraction": 0.15}, {"tokens": 120}]
ROWS = 200
NULLS = {"clip_score": 3, "words": 5, "image_embedding": 7, "text_embedding": 11, "concept_dog": 13, "person": 17}
"""Column -> the row that lacks it."""


def samples(rows: int, seed: int) -> pl.DataFrame:
    """Rows with every column that a selector here may want, many ties among them, in uid order."""
    noise = np.random.default_rng(seed)
    topics = unit(5, 16, seed)[noise.integers(0, 5, rows)]
    words = noise.integers(1, 12, rows)
    frame = pl.DataFrame(
        {
            "uid": [f"{value:032x}" for value in np.sort(noise.choice(2**40, rows, replace=False)).tolist()],
            "source": noise.choice(["alpha", "beta"], rows),
            "caption": [" ".join(noise.choice(["red", "dog", "the", "of", "sea"], count)) for count in words],
            "words": words.astype(np.int32),
            "clip_score": np.round(noise.uniform(0, 0.4, rows), 2).astype(np.float32),
            "normsim_2": noise.uniform(0, 9, rows).astype(np.float32),
            "concept_dog": noise.uniform(0, 1, rows).astype(np.float32),
            "concept_cat": np.round(noise.uniform(0, 1, rows), 1).astype(np.float32),
            "person": noise.choice(["one", "other"], rows, p=[0.7, 0.3]),
            "loud": noise.random(rows) < 0.4,
            IMAGE_EMBEDDING.name: pl.from_arrow(lists(near(topics, 0.5, seed + 1))),
            TEXT_EMBEDDING.name: pl.from_arrow(lists(near(topics, 0.7, seed + 2))),
        }
    )
    place = pl.int_range(pl.len())
    return frame.with_columns(
        pl.when(place == row).then(None).otherwise(pl.col(name)).alias(name) for name, row in NULLS.items()
    )


POOL, TARGET = samples(ROWS, 1), samples(40, 2)


def elsewhere(function: Any, pieces: Iterable[Any]) -> list[Any]:
    """What a cluster does: function, pieces and results travel."""
    return [
        cloudpickle.loads(cloudpickle.dumps(cloudpickle.loads(cloudpickle.dumps(function))(piece))) for piece in pieces
    ]


def judged(
    kind: str,
    settings: dict[str, Any],
    parts: int = 1,
    seed: int = 0,
    pin: Verdict | None = None,
    pool: pl.DataFrame = POOL,
    target: pl.DataFrame = TARGET,
) -> Verdict:
    rule = kinds(Rule)[kind](kind=kind, **settings)
    columns = ["uid", "source", *rule.columns()]
    # Which rows are a part, and in which order the parts come, is chance; inside a part they are in uid order.
    number = np.random.default_rng(parts).integers(0, parts, len(pool))
    cut = tuple(pool.filter(pl.Series(number == part)).select(columns).lazy() for part in range(parts))
    context = Context(
        seed,
        target.select(columns).lazy() if rule.needs_target() else None,
        pin.fit if pin else None,
        parts=cut if parts > 1 else (),
        map=elsewhere,
    )
    return rule.judge(pool.select(columns).lazy(), context)


def same(one: Verdict, other: Verdict) -> bool:
    return (
        one.dropped.equals(other.dropped)
        and one.scores is not None
        and other.scores is not None
        and one.scores.equals(other.scores)
        and one.evidence == other.evidence
        and one.fit == other.fit
    )


def test_every_selector_is_held_to_it() -> None:
    ours = {kind for kind, rule in kinds(Rule).items() if issubclass(rule, Selector) and "stages." in rule.__module__}
    ours = {kind for kind in ours if kinds(Rule)[kind].__module__.startswith("stages.")}
    assert ours == set(SETTINGS), "name settings for every selector"


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: next(iter(budget)))
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_parts_and_their_order_do_not_show(kind: str, settings: dict[str, Any], budget: dict[str, Any]) -> None:
    whole = judged(kind, settings | budget)
    for parts in (2, 7):
        assert same(whole, judged(kind, settings | budget, parts))
    json.dumps(whole.evidence, allow_nan=False)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_budget_is_kept_to_the_row_and_every_row_accounted_for(kind: str, settings: dict[str, Any]) -> None:
    verdict = judged(kind, settings | {"samples": 17})
    assert verdict.scores is not None
    eligible = len(verdict.scores)
    assert ROWS - len(verdict.dropped) == 17 and verdict.evidence["budget"]["eligible"] == eligible
    reasons = dict(verdict.dropped.group_by("reason").len().iter_rows())
    unreached = kinds(Rule)[kind](kind=kind, samples=17, **settings).reason()  # type: ignore[attr-defined]
    assert reasons.pop(unreached) == eligible - 17
    assert sum(reasons.values()) == ROWS - eligible and all(reason.endswith("_missing") for reason in reasons)
    kept = verdict.scores.join(verdict.dropped, on="uid", how="anti")
    others = verdict.scores.join(kept, on="uid", how="anti")
    assert kept["score"].min() >= others["score"].max()  # type: ignore[operator]
    tokens = judged(kind, settings | {"tokens": 120})
    counted = POOL.join(tokens.dropped, on="uid", how="anti")["words"].sum()
    assert counted is not None and 60 < counted <= 120


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_pin_decides_the_same_rows_alike_and_comes_back_as_it_was(kind: str, settings: dict[str, Any]) -> None:
    first = judged(kind, settings | {"samples": 17})
    if first.fit is None:
        return
    again = judged(kind, settings | {"samples": 17}, parts=2, pin=first)
    assert again.fit == first.fit and again.dropped.equals(first.dropped)
    assert again.scores is not None and again.scores.equals(first.scores)
    more = judged(kind, settings | {"samples": 30}, pin=first)
    assert more.fit == first.fit and ROWS - len(more.dropped) == 30


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_rows_without_a_value_are_not_eligible(kind: str, settings: dict[str, Any]) -> None:
    verdict = judged(kind, settings | {"samples": 17})
    read = kinds(Rule)[kind](kind=kind, samples=17, **settings).columns()
    reasons = dict(verdict.dropped.select("uid", "reason").iter_rows())
    for column in set(read) & set(NULLS):
        assert reasons[POOL["uid"][NULLS[column]]] == f"{column}_missing"


def readable(kind: str, settings: dict[str, Any], rows: list[int]) -> pl.DataFrame:
    """Thirty rows, of which only these have what the selector ranks by; these alone where it needs nothing."""
    reads = kinds(Rule)[kind](kind=kind, samples=1, **settings).reads()  # type: ignore[attr-defined]
    place = pl.int_range(pl.len())
    pool = POOL.slice(20, 30)
    if not reads:
        return pool[rows]
    return pool.with_columns(pl.when(place.is_in(rows)).then(pl.col(name)).alias(name) for name in reads)


def kept(verdict: Verdict, pool: pl.DataFrame = POOL) -> list[str]:
    return pool.join(verdict.dropped, on="uid", how="anti")["uid"].to_list()


def told(others: pl.DataFrame) -> str:
    """What a refusal says of the rows that are not eligible."""
    reasons = others.group_by("reason").len().sort("len", "reason", descending=[True, False])
    listed = ", ".join(f"{count} as {reason}" for reason, count in reasons.iter_rows())
    return f", {len(others)} not eligible" + (f": {listed}" if listed else "")


def refused(kind: str, settings: dict[str, Any], pool: pl.DataFrame = POOL, pin: Verdict | None = None) -> str:
    with pytest.raises(CuveeError) as caught:
        judged(kind, settings, pin=pin, pool=pool)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_no_eligible_row_is_refused_whatever_the_budget(kind: str, settings: dict[str, Any]) -> None:
    pin = judged(kind, settings | {"samples": 17})
    for pool in (readable(kind, settings, []), POOL.head(0)):
        for budget, asked in (
            ({"samples": 1}, "1 samples, and there are"),
            ({"fraction": 0.5}, "a fraction of 0.5, and there are"),
            ({"fraction": 1.0}, "a fraction of 1.0, and there are"),
            ({"tokens": 9}, "9 tokens, and there are 0 tokens in"),
        ):
            for message in (refused(kind, settings | budget, pool), refused(kind, settings | budget, pool, pin)):
                assert message.startswith(f"asked for {asked} 0 eligible rows, {len(pool)} not eligible")
                assert ("_missing; nothing would be kept: " if len(pool) else "eligible; nothing would be ") in message


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_single_eligible_row_is_kept(kind: str, settings: dict[str, Any]) -> None:
    pool, pin = readable(kind, settings, [7]), judged(kind, settings | {"samples": 17})
    own = POOL["uid"][27]
    tokens = int(POOL[27].select(TOKENS).item())
    for budget in ({"samples": 1}, {"fraction": 1.0}, {"fraction": 0.01}, {"tokens": tokens}):
        verdict = judged(kind, settings | budget, pool=pool)
        assert kept(verdict, pool) == [own] and len(verdict.dropped) == len(pool) - 1
        assert verdict.evidence["budget"]["eligible"] == verdict.evidence["budget"]["kept"] == 1
        json.dumps(verdict.evidence, allow_nan=False)
        assert same(verdict, judged(kind, settings | budget, parts=3, pool=pool))
        assert kept(judged(kind, settings | budget, pin=pin, pool=pool), pool) == [own]
    others = told(verdict.dropped)
    assert refused(kind, settings | {"samples": 2}, pool).startswith(
        f"asked for 2 samples, and there are 1 eligible rows{others}; lower `samples`"
    )
    assert refused(kind, settings | {"tokens": tokens + 1}, pool).startswith(
        f"asked for {tokens + 1} tokens, and there are {tokens} tokens in 1 eligible rows{others}; lower `tokens`"
    )


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_all_that_is_eligible_can_be_had_and_no_more(kind: str, settings: dict[str, Any]) -> None:
    few = judged(kind, settings | {"samples": 17})
    assert few.scores is not None
    n = len(few.scores)
    eligible = POOL.join(few.scores, on="uid", how="semi")
    tokens = int(eligible.select(TOKENS)["tokens"].sum())
    for budget in ({"samples": n}, {"fraction": 1.0}, {"tokens": tokens}):
        if kind == "m4":  # more than its bounds leave
            message = refused(kind, settings | budget)
            assert message.startswith(f"asked for {n} of {n} rows, and these shares and bounds leave at most ")
            most = int(message.split("leave at most ")[1].split(";")[0])
            assert len(kept(judged(kind, settings | {"samples": most}))) == most
            continue
        assert kept(judged(kind, settings | budget)) == eligible["uid"].to_list()
    others = told(few.dropped.filter(pl.col("reason").str.ends_with("_missing")))
    for pin in (None, few):
        assert refused(kind, settings | {"samples": n + 1}, pin=pin).startswith(
            f"asked for {n + 1} samples, and there are {n} eligible rows{others}; lower `samples`"
        )
        assert refused(kind, settings | {"tokens": tokens + 1}, pin=pin).startswith(
            f"asked for {tokens + 1} tokens, and there are {tokens} tokens in {n} eligible rows{others}; lower `tokens`"
        )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_border_through_equal_scores_is_cut_by_seed_and_uid(kind: str, settings: dict[str, Any], seed: int) -> None:
    """Every row eight times, under uids of its own: where a selector does not draw by noise, scores are equal."""
    uids = pl.Series("uid", [f"{number * 7919:032x}" for number in range(240)])
    pool = pl.concat([POOL.slice(20, 30)] * 8).with_columns(uids)
    for budget in ({"samples": 36}, {"fraction": 0.15}, {"tokens": 200}):
        verdict = judged(kind, settings | budget, seed=seed, pool=pool)
        chosen = kept(verdict, pool)
        assert verdict.scores is not None and ("tokens" in budget or len(chosen) == 36)
        tied = verdict.scores.filter(pl.col("score") == verdict.evidence["border"])["uid"].to_list()
        order = sorted(tied, key=lambda uid: uniform_noise([uid], seed, f"ties of {kind}")[0])
        taken = [uid for uid in order if uid in set(chosen)]
        assert taken == order[: len(taken)]
        if kind in ("best", "got_d", "longest_caption") and "tokens" not in budget:
            assert 0 < len(taken) < len(tied)


CONTENT = ["caption", "image_embedding", "text_embedding"]
SHOWN = {"clip_score": 1.0, "words": -12, "normsim_2": 9.0, "concept_dog": 1.0, "concept_cat": 1.0}
"""What makes rows the ones to choose, for selectors that rank by scores."""


TELLING = [case for case in CASES if case[0] not in ("deft", "longest_caption", "m4", "random")]
"""Selectors that look for rows like something."""


def labelled(seed: int, *, leaked: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A pool of 400 rows and a target of 40, which are the pool's last by uid and source; by content only if `leaked`.

    Else pool and target are noise, each of topics of its own: who prefers the 40 knows what nobody told.
    """
    pool, target = samples(400, seed), samples(40, seed + 1000)
    head, label = pool.head(360).with_columns(source=pl.lit("alpha")), pool.tail(40)
    target = target.with_columns(label["uid"], source=pl.lit("beta"))
    if leaked:
        target = target.with_columns(pl.col("caption").str.replace_all(" ", " ever "))
        shown = [(pl.col(name) + pl.lit(more, POOL.schema[name])).alias(name) for name, more in SHOWN.items()]
        label = label.with_columns(*(target[name] for name in CONTENT), *shown)
    return pl.concat([head, label.with_columns(source=pl.lit("beta"))]), target


def hits(kind: str, settings: dict[str, Any], *, leaked: bool = False, seeds: int = 20) -> tuple[float, float]:
    """Of the 40 among the tenth that is kept: the mean, where chance has 4, and how far that may be off (99 %)."""
    found = []
    for seed in range(seeds):
        pool, target = labelled(seed, leaked=leaked)
        verdict = judged(kind, settings | {"samples": 40}, seed=seed, pool=pool, target=target)
        found.append(len(set(kept(verdict, pool)) & set(target["uid"])))
    return float(np.mean(found)), 2.6 * float(np.std(found, ddof=1)) / np.sqrt(seeds)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_given_noise_no_selector_is_better_than_chance(kind: str, settings: dict[str, Any]) -> None:
    mean, off = hits(kind, settings)
    assert mean <= 4 + off and off < 2


@pytest.mark.parametrize(("kind", "settings"), TELLING)
def test_given_what_tells_them_apart_the_same_count_finds_it(kind: str, settings: dict[str, Any]) -> None:
    """So that the test above would see a leak."""
    mean, off = hits(kind, settings, leaked=True, seeds=4)
    assert mean - off > 8, (mean, off)
