"""SemDeDup without chains, across borders, with a veto, and in parts."""

from math import ceil
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import CuveeError, RecipeError
from stages.clusters import fit_centroids, probed_centroids
from stages.duplicates.semdedup import SemDeDup
from stages.near_vectors import neighbours
from stages.rule import Context, Verdict
from stages.vectors import cosines
from tests.stages.duplicates.test_semdedup import judge, partners, planted, table
from tests.stages.parts import judged_in_parts


def compared(embeddings: np.ndarray, clusters: int, probe: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) which pairs share a cluster, as its own for one of them; and the order of rows, far ones first."""
    uids = [f"{number:06d}" for number in range(len(embeddings))]
    centroids = fit_centroids(embeddings, uids, clusters, seed, "semdedup")
    number, cosine = probed_centroids(embeddings, centroids, probe)
    home = number[:, 0]
    at_home = (number[:, :, None] == home[None, None, :]).any(axis=1)
    return at_home | at_home.T, np.argsort(cosine[:, 0], kind="stable")


def greedily(close: np.ndarray, order: np.ndarray) -> dict[int, int]:
    """Row -> the first kept close row before it, one row after the other."""
    dropped: dict[int, int] = {}
    for place, row in enumerate(order.tolist()):
        kept = [other for other in order[:place].tolist() if other not in dropped and close[row, other]]
        if kept:
            dropped[row] = kept[0]
    return dropped


@pytest.mark.parametrize("probe", [1, 2, 8])
def test_a_greedy_drop_has_a_kept_witness_and_no_other_is_missed(probe: int) -> None:
    embeddings = planted(700, 12, seed=probe)
    embeddings[600:] = embeddings[0]  # a full bucket of equals
    together, order = compared(embeddings, 10, probe)
    close = (cosines(embeddings, embeddings) > 1 - 0.05) & together
    verdict = judge(SemDeDup(epsilon=0.05, clusters=10, method="greedy", probe=probe), table(embeddings))
    assert partners(verdict) == greedily(close, order)
    assert not set(verdict.dropped["duplicate_of"]) & set(verdict.dropped["uid"])
    exact = cosines(embeddings, embeddings)
    for uid, other, value in verdict.dropped.select("uid", "duplicate_of", "similarity").iter_rows():
        assert value == round(exact[int(uid), int(other)], 12)


@pytest.mark.parametrize("probe", [2, 8])
def test_rows_across_borders_are_compared_as_defined(probe: int) -> None:
    embeddings = planted(600, 8, seed=3)
    together, order = compared(embeddings, 12, probe)
    place = np.empty(600, np.int64)
    place[order] = np.arange(600)
    exact = np.where(together & (place[None, :] < place[:, None]), cosines(embeddings, embeddings), -np.inf)
    verdict = judge(SemDeDup(epsilon=0.05, clusters=12, probe=probe), table(embeddings))
    assert set(partners(verdict)) == set(np.flatnonzero(exact.max(axis=1) > 0.95).tolist())
    for uid, other, value in verdict.dropped.select("uid", "duplicate_of", "similarity").iter_rows():
        assert exact[int(uid), int(other)] == exact[int(uid)].max() and value == round(exact[int(uid)].max(), 12)
    assert set(partners(judge(SemDeDup(epsilon=0.05, clusters=12), table(embeddings)))) < set(partners(verdict))


@pytest.mark.parametrize("keep", [0.98, 0.9, 0.7, 0.4])
@pytest.mark.parametrize("probe", [1, 2])
def test_greedy_keep_is_reached_exactly_without_chains(keep: float, probe: int) -> None:
    rows = table(planted(3_000, 12))
    rule = SemDeDup(keep=keep, clusters=20, method="greedy", probe=probe)
    verdict = judge(rule, rows)
    assert len(rows) - len(verdict.dropped) == ceil(keep * len(rows) - 1e-9)
    assert not set(verdict.dropped["duplicate_of"]) & set(verdict.dropped["uid"])
    again = rule.judge(rows.lazy(), Context(0, fit=verdict.fit))
    assert again.dropped.equals(verdict.dropped) and again.fit == verdict.fit


def test_greedy_keeps_more_than_the_published_rule_at_the_same_epsilon() -> None:
    rows = table(planted(2_000, 8))
    published = set(partners(judge(SemDeDup(epsilon=0.07), rows)))
    greedy = set(partners(judge(SemDeDup(epsilon=0.07, method="greedy"), rows)))
    assert greedy < published


def test_greedy_keep_drops_copies_first_and_refuses_what_cannot_be() -> None:
    rows = table(np.repeat(planted(5, 8)[:2], [6, 4], axis=0))
    verdict = judge(SemDeDup(keep=0.5, clusters=2, method="greedy"), rows)
    assert verdict.dropped["similarity"].to_list() == [1.0] * 5
    with pytest.raises(CuveeError, match="means 9 drops, but fewer"):
        judge(SemDeDup(keep=0.1, clusters=2, method="greedy"), rows)


def test_more_pairs_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_PAIRS", 10)
    with pytest.raises(CuveeError, match="pairs are more similar than"):
        judge(SemDeDup(epsilon=0.5, clusters=1, method="greedy"), table(planted(100, 4)))


def with_second(embeddings: np.ndarray, second: list[list[float] | None]) -> pl.DataFrame:
    return table(embeddings).with_columns(pl.Series("other", second, pl.List(pl.Float16)))


@pytest.mark.parametrize("method", ["published", "greedy"])
def test_a_veto_keeps_what_only_one_embedding_takes_for_equal(method: Any) -> None:
    embeddings = np.repeat(planted(5, 8)[:1], 5, axis=0)
    rows = with_second(embeddings, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], None, None])
    rule = SemDeDup(epsilon=0.1, method=method, veto={"column": "other", "above": 0.5})
    assert rule.columns() == ("image_embedding", "other")
    assert partners(judge(rule, rows)) == {1: 0}
    assert partners(judge(SemDeDup(epsilon=0.1, method=method), rows)) == {1: 0, 2: 0, 3: 0, 4: 0}


@pytest.mark.parametrize("above", [0.0, 0.3])
def test_a_veto_changes_nothing_but_which_pairs_are_close(above: float) -> None:
    embeddings, second = planted(500, 8, seed=1), planted(500, 6, seed=2)
    together, order = compared(embeddings, 10, 1)
    close = (cosines(embeddings, embeddings) > 0.9) & (cosines(second, second) > above) & together
    rule = SemDeDup(epsilon=0.1, clusters=10, method="greedy", veto={"column": "other", "above": above})
    verdict = judge(rule, with_second(embeddings, second.astype(np.float32).tolist()))
    assert partners(verdict) == greedily(close, order)


RULES = {
    "published": {"keep": 0.9},
    "greedy": {"keep": 0.9, "method": "greedy"},
    "borders": {"epsilon": 0.05, "method": "greedy", "probe": 2, "order": "random"},
    "veto": {"epsilon": 0.2, "probe": 2, "veto": {"column": "other", "above": 0.1}},
}


def same(one: Verdict, other: Verdict) -> bool:
    return one.dropped.equals(other.dropped) and one.evidence == other.evidence and one.fit == other.fit


@pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
def test_one_two_and_seven_parts_decide_alike(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS_PER_PIECE", 90)
    rows = with_second(planted(600, 8), planted(600, 6, seed=2).astype(np.float32).tolist())
    rows = rows.with_columns(pl.when(pl.int_range(600) % 50 > 0).then("image_embedding").alias("image_embedding"))
    rule = SemDeDup.model_validate(settings)
    whole = judge(rule, rows)
    assert len(whole.dropped) > 20
    for parts in (1, 2, 7):
        assert same(judged_in_parts(rule, rows, parts), whole)
        pinned = judged_in_parts(rule, rows, parts, fit=whole.fit)
        assert pinned.dropped.equals(whole.dropped)


@pytest.mark.parametrize(
    "settings",
    [{"probe": 0}, {"probe": 9}, {"method": "other"}, {"veto": {"column": "c"}}, {"veto": {"above": 0.1}},
     *({"veto": {"column": name, "above": 0.1}} for name in ("image_embedding", "phash_turned", "clip_score"))],
)  # fmt: skip
def test_senseless_options_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SemDeDup.model_validate({"epsilon": 0.1, **settings})


@pytest.mark.parametrize("holds", [pl.Float32, pl.List(pl.Int64), pl.List(pl.List(pl.Float32))])
def test_a_veto_without_embeddings_is_refused(holds: pl.DataType) -> None:
    rule = SemDeDup(epsilon=0.1, veto={"column": "other", "above": 0.5})
    with pytest.raises(RecipeError, match=r"'other' holds .*, no embedding; name a column of lists of floats"):
        judge(rule, table(planted(5, 8)).with_columns(pl.lit(None).cast(holds).alias("other")))
