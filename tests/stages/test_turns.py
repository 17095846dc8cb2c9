import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stages.turns import in_turn, shares_of_lists

LISTS = st.integers(1, 25).flatmap(
    lambda rows: st.lists(st.lists(st.integers(0, 5), min_size=rows, max_size=rows), min_size=1, max_size=4)
)


@given(LISTS, st.integers(0, 3))
def test_the_best_of_every_list_come_first(values, seed):
    uids = pl.Series("uid", [f"{row:03d}" for row in range(len(values[0]))])
    lists = {f"list {number}": np.array(column, float) for number, column in enumerate(values)}
    found = in_turn(uids, lists, seed, "test")
    for name, column in lists.items():
        assert sorted(found[name]) == list(range(1, len(uids) + 1))
        assert (np.diff(column[np.argsort(found[name].to_numpy())]) <= 0).all()
    for border in range(1, len(uids) + 1):
        kept = found.filter(pl.col("score") >= -border)
        heads = [set(found.filter(pl.col(name) <= border)["uid"]) for name in lists]
        assert set(kept["uid"]) == set().union(*heads)
        shares = shares_of_lists(kept, list(lists))
        assert shares["places"] <= border and set(shares["rows"].values()) == {shares["places"]}
        heads = [set(found.filter(pl.col(name) <= shares["places"])["uid"]) for name in lists]
        several = sum(sum(uid in head for head in heads) > 1 for uid in kept["uid"])
        assert shares["in_several"] == several


def test_ties_go_by_seed_and_uid_and_not_by_place():
    uids = pl.Series("uid", [f"{row:03d}" for row in range(50)])
    first = in_turn(uids, {"a": np.zeros(50)}, 0, "test")
    assert first["a"].to_list() != sorted(first["a"]) != in_turn(uids, {"a": np.zeros(50)}, 1, "test")["a"].to_list()
    turned = in_turn(uids.reverse(), {"a": np.zeros(50)}, 0, "test")
    assert turned.sort("uid").equals(first)


def test_nothing_kept():
    empty = in_turn(pl.Series("uid", [], pl.String), {"a": np.zeros(0)}, 0, "test")
    assert shares_of_lists(empty, ["a"]) == {"places": 0, "rows": {"a": 0}, "in_several": 0}
