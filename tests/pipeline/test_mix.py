"""Quotas and draws: their laws as properties, their refusals by message."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.mix import draw, natural_shares, quotas
from schemas.errors import ContractError, CuveeError

NAMES = ("art", "books", "cars", "dogs", "eggs")


@st.composite
def wishes(draw_):
    names = NAMES[: draw_(st.integers(1, 5))]
    available = {name: draw_(st.integers(0, 60)) for name in names}
    raw = {name: draw_(st.integers(0, 10)) for name in names}
    if not sum(raw.values()):
        raw[names[0]] = 1
    shares = {name: value / sum(raw.values()) for name, value in raw.items()}
    repeats = draw_(st.integers(1, 5))
    samples = draw_(st.integers(0, repeats * sum(available.values())))
    return shares, available, samples, repeats


@settings(max_examples=300, deadline=None)
@given(wishes())
def test_quotas_add_up_and_stay_below_the_cap(wish):
    shares, available, samples, repeats = wish
    found = quotas(shares, available, samples, repeats)
    assert list(found) == sorted(available)
    assert sum(found.values()) == samples
    assert all(0 <= found[name] <= repeats * available[name] for name in available)


@settings(max_examples=300, deadline=None)
@given(wishes())
def test_quotas_are_within_one_of_the_shares_where_no_cap_binds(wish):
    shares, available, samples, repeats = wish
    if any(shares[name] * samples > repeats * available[name] for name in shares):
        return
    for name, count in quotas(shares, available, samples, repeats).items():
        assert abs(count - shares[name] * samples) < 1 + 1e-9


@settings(max_examples=300, deadline=None)
@given(wishes())
def test_below_the_cap_quotas_keep_the_proportions_of_the_shares(wish):
    shares, available, samples, repeats = wish
    found = quotas(shares, available, samples, repeats)
    open_ = [name for name in found if shares[name] and found[name] < repeats * available[name]]
    if open_ and sum(found[name] for name in found if shares[name]) == samples:
        unit = sum(found[name] for name in open_) / sum(shares[name] for name in open_)
        # Full sources may have been filled by the last rounding step: they hold back less than one row each.
        assert all(abs(found[name] - shares[name] * unit) <= 1 + len(found) for name in open_)


@settings(max_examples=100, deadline=None)
@given(wishes(), st.randoms())
def test_quotas_do_not_depend_on_the_order_of_the_sources(wish, random):
    shares, available, samples, repeats = wish
    names = list(available)
    random.shuffle(names)
    turned = quotas({n: shares[n] for n in names}, {n: available[n] for n in names}, samples, repeats)
    assert turned == quotas(shares, available, samples, repeats)


def test_what_a_cap_leaves_over_goes_to_the_others_in_proportion():
    available = {"art": 10, "books": 1000, "cars": 1000, "dogs": 1000}
    shares = {"art": 0.4, "books": 0.2, "cars": 0.4, "dogs": 0.0}
    assert quotas(shares, available, 320, 2) == {"art": 20, "books": 100, "cars": 200, "dogs": 0}


def test_a_cap_that_only_binds_after_the_overflow():
    shares = {"art": 0.5, "books": 0.3, "cars": 0.2}
    found = quotas(shares, {"art": 10, "books": 36, "cars": 100}, 100, 1)
    assert found == {"art": 10, "books": 36, "cars": 54}


def test_sources_without_a_share_are_the_last_resort():
    shares = {"art": 1.0}
    assert quotas(shares, {"art": 5, "books": 30, "cars": 10}, 9, 1) == {"art": 5, "books": 3, "cars": 1}


def test_equal_remainders_go_to_the_name_that_sorts_first():
    assert quotas({"b": 0.25, "a": 0.25, "c": 0.5}, {"c": 9, "b": 9, "a": 9}, 6) == {"a": 2, "b": 1, "c": 3}
    assert quotas({"a": 0.1, "b": 0.3, "c": 0.6}, {"a": 9, "b": 9, "c": 9}, 5) == {"a": 1, "b": 1, "c": 3}


def test_more_samples_than_rows_and_repeats_is_refused_with_both_numbers():
    with pytest.raises(CuveeError, match=r"41 samples .* 10 surviving rows drawn at most 4 times give 40"):
        quotas({"a": 1.0}, {"a": 6, "b": 4}, 41, 4)
    assert quotas({"a": 1.0}, {"a": 6, "b": 4}, 40, 4) == {"a": 24, "b": 16}


@pytest.mark.parametrize("shares", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": math.nan, "b": 1.0}, {}])
def test_shares_off_the_simplex_are_refused(shares):
    with pytest.raises(ContractError, match="sum to 1"):
        quotas(shares, {"a": 5, "b": 5}, 5)


def test_natural_shares_are_counts_over_the_total():
    assert natural_shares({"b": 3, "a": 1}) == {"a": 0.25, "b": 0.75}
    assert list(natural_shares({"b": 3, "a": 1})) == ["a", "b"]
    with pytest.raises(CuveeError, match="no rows"):
        natural_shares({"a": 0})


def table(counts: dict[str, int], weights=None) -> pl.DataFrame:
    uids = [f"{name}-{i:05d}" for name, count in counts.items() for i in range(count)]
    sources = [name for name, count in counts.items() for _ in range(count)]
    schema = {"uid": pl.String, "source": pl.String, "weight": pl.Float64}
    return pl.DataFrame({"uid": uids, "source": sources, "weight": weights or [1.0] * len(uids)}, schema)


@settings(max_examples=150, deadline=None)
@given(wishes(), st.integers(0, 5))
def test_draws_fill_every_quota_as_evenly_as_possible(wish, seed):
    shares, available, samples, repeats = wish
    rows = table(available)
    counts = quotas(shares, available, samples, repeats)
    drawn = draw(rows, counts, seed)
    assert drawn.schema == {"uid": pl.String, "repeats": pl.Int32}
    assert drawn["uid"].to_list() == sorted(rows["uid"].to_list())
    joined = drawn.join(rows, on="uid")
    for (name,), part in joined.partition_by("source", as_dict=True).items():
        assert part["repeats"].sum() == counts[name]
        assert part["repeats"].max() - part["repeats"].min() <= 1
        assert part["repeats"].max() <= repeats
    assert drawn.equals(draw(rows.sample(fraction=1.0, shuffle=True, seed=seed), counts, seed))


def test_a_draw_does_not_depend_on_the_other_sources():
    rows = table({"art": 50, "books": 50})
    alone = draw(rows.filter(pl.col("source") == "art"), {"art": 20}, 3)
    assert draw(rows, {"art": 20, "books": 7}, 3).filter(pl.col("uid").str.starts_with("art")).equals(alone)


def test_a_larger_quota_keeps_what_a_smaller_one_drew():
    rows = table({"art": 200})
    small, large = (draw(rows, {"art": count}, 0).filter(pl.col("repeats") > 0)["uid"] for count in (40, 90))
    assert set(small) < set(large)


def test_rows_are_drawn_by_weight():
    heavy = {"art": 3000}
    weights = [4.0 if i % 2 else 1.0 for i in range(3000)]
    picked = draw(table(heavy, weights), {"art": 60}, 1)["repeats"].to_numpy() > 0
    share = picked[1::2].sum() / picked.sum()
    assert share == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 60))


def test_the_draw_is_without_replacement_by_weight():
    """Chance to be in the draw of 2 of 3 rows, against the closed form of successive drawing."""
    weights = np.array([1.0, 2.0, 5.0])
    rows = table({"art": 3}, weights.tolist())
    p = weights / weights.sum()
    expected = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i) for i in range(3)]
    hits = np.mean([draw(rows, {"art": 2}, seed)["repeats"].to_numpy() for seed in range(3000)], axis=0)
    assert hits == pytest.approx(expected, abs=0.035)


def test_what_cannot_be_drawn_from_is_refused():
    rows = table({"art": 3})
    with pytest.raises(ContractError, match="'books' has no rows but a quota of 2"):
        draw(rows, {"art": 1, "books": 2}, 0)
    for bad in (0.0, -1.0, math.nan, math.inf, None):
        with pytest.raises(ContractError, match="weights > 0"):
            draw(table({"art": 2}, [1.0, bad]), {"art": 1}, 0)
    assert draw(rows.clear(), {}, 0).is_empty()
