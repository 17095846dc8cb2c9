"""Identities of many samples at once are the identities of each."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fingerprints import sample_uid, sample_uids

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.text(
    st.sampled_from('a "\\\x7f{}é'), max_size=6
)
FACTS = st.tuples(TEXT, st.none() | TEXT, st.none() | st.sampled_from(["0a" * 16, "f" * 32]), st.integers(0, 12))


@given(st.lists(FACTS, max_size=8))
def test_uids_of_many_are_those_of_each(facts: list[tuple[str, str | None, str | None, int]]) -> None:
    schema = {"source": pl.String, "key": pl.String, "content": pl.String, "occurrence": pl.Int64}
    found = sample_uids(pl.DataFrame(facts, schema, orient="row"))
    assert found.to_list() == [sample_uid(*one) for one in facts]
