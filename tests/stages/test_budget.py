import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import CuveeError
from stages.budget import TOKENS, Budget
from stages.noise import uniform_noise
from stages.rule import drop_lines


def ranked(scores, tokens=None):
    frame = {"uid": [f"{place:04d}" for place in range(len(scores))], "score": [float(score) for score in scores]}
    return pl.DataFrame(
        frame | ({"tokens": tokens} if tokens is not None else {}), schema_overrides={"score": pl.Float64}
    )


def kept(budget, rows, seed=0):
    return sorted(rows.filter(pl.Series(budget.take(rows, seed, "test")))["uid"].to_list())


@pytest.mark.parametrize(
    "settings", [{}, {"samples": 1, "fraction": 0.5}, {"samples": 1, "fraction": 0.5, "tokens": 2}]
)
def test_exactly_one_way_to_say_how_much(settings):
    with pytest.raises(ValidationError, match="name exactly one"):
        Budget(**settings)


def test_the_best_are_kept():
    assert kept(Budget(samples=2), ranked([0.1, 0.9, 0.5])) == ["0001", "0002"]
    assert kept(Budget(fraction=0.3), ranked(range(10))) == ["0007", "0008", "0009"]
    assert kept(Budget(samples=3), ranked([1, 2, 3])) == ["0000", "0001", "0002"]


def test_more_than_there_is_is_refused_with_both_numbers():
    with pytest.raises(CuveeError, match="asked for 4 samples, and there are 3 eligible rows"):
        Budget(samples=4).take(ranked([1, 2, 3]), 0, "test")
    with pytest.raises(CuveeError, match="asked for 7 tokens, and there are 6 tokens in 3 eligible rows"):
        Budget(tokens=7).take(ranked([1, 2, 3], [1, 2, 3]), 0, "test")
    with pytest.raises(CuveeError, match="asked for 1 samples, and there are 0"):
        Budget(samples=1).take(ranked([]), 0, "test")


@pytest.mark.parametrize("budget", [{"samples": 1}, {"fraction": 0.5}, {"tokens": 1}])
def test_nothing_is_no_selection(budget):
    with pytest.raises(CuveeError, match=r"and there are (0 tokens in )?0 eligible rows; nothing would be kept"):
        Budget(**budget).take(ranked([], []), 0, "test")
    others = drop_lines(pl.DataFrame({"uid": ["a", "b"]}), "price_missing")
    with pytest.raises(CuveeError, match=r"0 eligible rows, 2 not eligible: 2 as price_missing; nothing would be kept"):
        Budget(**budget).take(ranked([], []), 0, "test", others)


def test_tokens_end_at_the_first_row_that_does_not_fit():
    rows = ranked([4, 3, 2, 1], [5, 3, 4, 1])
    assert kept(Budget(tokens=8), rows) == ["0000", "0001"]
    assert kept(Budget(tokens=9), rows) == ["0000", "0001"]  # the 1 further down does not slip in
    assert kept(Budget(tokens=13), rows) == ["0000", "0001", "0002", "0003"]
    with pytest.raises(CuveeError, match="asked for 4 tokens, and the caption of the first row in order has 5"):
        kept(Budget(tokens=4), rows)


def test_tokens_buy_a_row_of_mean_length_at_least():
    assert Budget(tokens=9).rows(4, 18) == 2
    assert Budget(tokens=1).rows(4, 18) == 1


def test_tokens_of_a_caption():
    frame = pl.DataFrame({"caption": ["A red bus, parked.", "", None, "naïve café"]})
    assert frame.select(TOKENS)["tokens"].to_list() == [6, 0, 0, 2]


@given(st.lists(st.text(max_size=20), max_size=8))
def test_tokens_are_those_of_dsir(captions):
    counted = pl.DataFrame({"caption": captions}, schema={"caption": pl.String}).select(TOKENS)["tokens"]
    assert counted.to_list() == [len(re.findall(r"\w+|[^\w\s]+", caption.lower())) for caption in captions]


def test_ties_go_by_seed_and_uid():
    rows = ranked([1.0] * 50)
    noise = uniform_noise(rows["uid"].to_list(), 7, "ties of test")
    assert kept(Budget(samples=5), rows, 7) == sorted(rows["uid"].gather(np.argsort(noise)[:5]).to_list())
    assert kept(Budget(samples=5), rows, 8) != kept(Budget(samples=5), rows, 7)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40), st.randoms(), st.data())
def test_order_of_rows_does_not_count(drawn, random, data):
    rows = ranked([score for score, _ in drawn], [tokens for _, tokens in drawn])
    places = list(range(len(rows)))
    random.shuffle(places)
    most = max(1, int(rows["tokens"].sum()))
    budgets = [Budget(samples=data.draw(st.integers(1, len(rows)))), Budget(fraction=data.draw(st.floats(0.01, 1)))]
    least = max(1, int(rows["tokens"].max()))
    budgets += [Budget(tokens=data.draw(st.integers(least, most)))] if rows["tokens"].sum() else []
    for budget in budgets:
        found = kept(budget, rows)
        assert found == kept(budget, rows[places])
        left = rows.filter(~pl.col("uid").is_in(found))
        chosen = rows.filter(pl.col("uid").is_in(found))
        if found and len(left):
            assert chosen["score"].min() >= left["score"].max()
        if budget.samples:
            assert len(found) == budget.samples
        if budget.tokens:
            assert chosen["tokens"].sum() <= budget.tokens
