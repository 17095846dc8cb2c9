"""Limits: bounds, what binds, and which two collide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import CuveeError
from stages.mixture.limits import UNLIMITED, Limits

NAMES = ("art", "books", "cars")


def test_the_default_is_four_repeats_and_nothing_else():
    found = Limits().bounds(NAMES, (10, 100, 1000), 200)
    assert found.lower.tolist() == [0, 0, 0] and found.upper.tolist() == [0.2, 1, 1]
    assert found.why_upper == ("max_repeats: art", "", "") and found.why_lower == ("", "", "")
    assert Limits().repeats_allowed() == 4 and Limits(max_repeats=None).repeats_allowed() == UNLIMITED
    assert Limits(max_repeats=None).bounds(NAMES, (1, 1, 1), 200).upper.tolist() == [1, 1, 1]


def test_one_number_holds_for_all_and_a_table_for_those_it_names():
    found = Limits(min_share=0.1, max_share={"books": 0.5}).bounds(NAMES, (100, 100, 100), 100)
    assert found.lower.tolist() == [0.1, 0.1, 0.1] and found.upper.tolist() == [1, 0.5, 1]
    found = Limits(min_share={"cars": 0.2}, max_share=0.6).bounds(NAMES, (100, 100, 100), 100)
    assert found.lower.tolist() == [0, 0, 0.2] and found.upper.tolist() == [0.6, 0.6, 0.6]


def test_what_binds_is_named_by_the_tighter_setting():
    found = Limits(min_share={"cars": 0.2}, max_share=0.6).bounds(NAMES, (10, 100, 100), 100)
    assert found.upper.tolist() == [0.4, 0.6, 0.6]
    assert found.binding(np.array([0.4, 0.4, 0.2])) == ("min_share: cars", "max_repeats: art")
    assert found.binding(np.array([0.0, 0.6, 0.4])) == ("max_share: books",)
    assert found.binding(np.array([0.3, 0.4, 0.3])) == ()
    assert found.hold(np.array([0.4, 0.4, 0.2])) and not found.hold(np.array([0.4, 0.45, 0.15]))


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        (
            {"min_share": {"art": 0.6}},
            (10, 100, 100),
            r"min_share of 'art' is 0.6, but max_repeats allows it 0.4 \(4 x 10 rows of 100 samples\)",
        ),
        (
            {"min_share": {"art": 0.6}, "max_share": 0.5},
            (100, 100, 100),
            r"min_share of 'art' is 0.6, but max_share allows it 0.5; lower the one",
        ),
        ({"min_share": 0.4}, (100, 100, 100), r"min_shares add up to 1.2 \(art 0.4, books 0.4, cars 0.4\)"),
        ({"max_share": 0.3}, (100, 100, 100), r"max_share allow all sources together 0.9 \(art 0.3"),
        ({"max_share": {"cars": 0.1}}, (10, 10, 100), r"max_repeats and max_share allow all sources together 0.9"),
        ({"max_repeats": 1}, (20, 30, 40), r"100 samples .* 90 surviving rows drawn at most 1 times give 90"),
        ({"min_share": {"boks": 0.1}}, (9, 99, 99), r"min_share names source 'boks'.* did you mean 'books'\?"),
        ({"max_share": {"zebra": 0.1}}, (9, 99, 99), r"max_share names source 'zebra'.*sources are art, books, cars"),
    ],
)
def test_limits_that_leave_no_shares_name_the_two_that_collide(settings, rows, message):
    with pytest.raises(CuveeError, match=message):
        Limits(**settings).bounds(NAMES, rows, 100)


def test_a_source_without_rows_may_have_a_largest_share_but_no_least_one():
    Limits(max_share={"dogs": 0.5}).bounds(NAMES, (50, 50, 50), 100, known=(*NAMES, "dogs"))
    with pytest.raises(CuveeError, match=r"min_share of 'dogs' is 0.2, but it has no surviving rows"):
        Limits(min_share={"dogs": 0.2}).bounds(NAMES, (50, 50, 50), 100, known=(*NAMES, "dogs"))


def test_priors():
    natural = {"art": 0.1, "books": 0.2, "cars": 0.3, "dogs": 0.4}
    assert Limits().prior_shares(NAMES, natural) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert Limits(prior="uniform").prior_shares(NAMES, natural) == pytest.approx([1 / 3] * 3)
    named = Limits(prior={"art": 2, "books": 1, "cars": 1, "dogs": 7})
    assert named.prior_shares(NAMES, natural) == pytest.approx([0.5, 0.25, 0.25])
    with pytest.raises(CuveeError, match="the prior gives source 'cars' no share above 0; name one for each"):
        Limits(prior={"art": 2, "books": 1}).prior_shares(NAMES, natural)
    with pytest.raises(CuveeError, match=r"prior names source 'arts', .* did you mean 'art'"):
        Limits(prior={"arts": 2}).prior_shares(NAMES, natural)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_repeats": 0},
        {"min_share": -0.1},
        {"max_share": {"art": 1.5}},
        {"prior": {"art": 0.0}},
        {"prior": "natural-ish"},
        {"prior_strength": -1},
        {"prior_strength": float("inf")},
        {"max_shares": 0.5},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValidationError):
        Limits(**settings)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_bounds_are_given_iff_shares_exist(rows, samples, least, most):
    names = [f"s{i}" for i in range(len(rows))]
    try:
        found = Limits(min_share=least, max_share=most).bounds(names, rows, samples)
    except CuveeError:
        upper = np.minimum(np.minimum(1, 4 * np.array(rows) / samples), most)
        assert (least > upper).any() or least * len(rows) > 1 or upper.sum() < 1
        return
    assert (found.lower <= found.upper).all() and found.lower.sum() <= 1 + 1e-8 and found.upper.sum() >= 1 - 1e-8
