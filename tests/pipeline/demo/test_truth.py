import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.demo.corpus import TRUTH
from pipeline.demo.truth import area_under_curve, compare_with_truth
from schemas.errors import CuveeError
from schemas.tables import LEDGER

TRUE_ROWS = [
    ("a", "1", "none", None),
    ("a", "2", "exact_duplicate", "a/1"),
    ("b", "1", "exact_duplicate", "a/1"),
    ("a", "3", "none", None),
    ("a", "4", "near_duplicate", "a/3"),
    ("a", "5", "mismatched", None),
    ("b", "2", "corrupt", None),
    ("b", "3", "corrupt", None),
    ("b", "4", "none", None),
    ("b", "5", "boilerplate", None),
]
PERFECT = {
    "a/1": ("dropped", "exact_duplicates", "b/1"),
    "a/2": ("dropped", "exact_duplicates", "b/1"),
    "a/3": ("dropped", "near_duplicate_images", "a/4"),
    "b/2": ("quarantined", "image_header", None),
    "b/3": ("quarantined", "image_header", None),
}


def truth() -> pl.DataFrame:
    return pl.DataFrame([(source, "00000.tar", *rest) for source, *rest in TRUE_ROWS], TRUTH, orient="row")


def ledger(decisions: dict[str, tuple[str, str, str | None]]) -> pl.DataFrame:
    rows = []
    for source, key, *_ in [*TRUE_ROWS, ("target", "1")]:
        status, rule, partner = decisions.get(f"{source}/{key}", ("kept", None, None))
        role = "target" if source == "target" else "pool"
        facts = {"uid": f"{source}/{key}", "role": role, "source": source, "key": key, "status": status}
        rows.append({**facts, "decided_by": rule, "duplicate_of": partner})
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(("decided_by", "duplicate_of"), pl.String))


def scores(**changed: float | None) -> pl.DataFrame:
    values = {f"{source}/{key}": 0.5 for source, key, *_ in TRUE_ROWS} | {"a/5": 0.1} | changed
    return pl.DataFrame({"uid": list(values), "clip_score": list(values.values())})


def test_the_hand_made_ledger_uses_the_ledgers_columns():
    assert set(ledger(PERFECT).columns) <= set(LEDGER.names)


def test_a_perfect_run():
    found = compare_with_truth(ledger(PERFECT), scores(), truth())
    assert found["samples"] == 10 and found["mismatched_auc"] == 1.0
    assert found["exact_duplicates"] == {"recall": 1.0, "precision": 1.0, "planted": 2, "decided": 2}
    assert found["near_duplicates"] == {"recall": 1.0, "precision": 1.0, "planted": 1, "decided": 1}
    assert found["corrupt"] == {"recall": 1.0, "precision": 1.0, "planted": 2, "decided": 2}
    assert found["kept_by_plant"] == {
        "boilerplate": 1,
        "exact_duplicate": 1,
        "mismatched": 1,
        "near_duplicate": 1,
        "none": 1,
    }


def test_every_kind_of_mistake_costs():
    decisions = {
        "a/1": ("dropped", "exact_duplicates", "a/2"),
        "a/2": ("dropped", "exact_duplicates", "b/1"),
        "b/1": ("dropped", "exact_duplicates", "a/1"),  # one more than the group has to spare
        "a/4": ("dropped", "near_duplicate_images", "b/4"),  # not its double
        "b/4": ("dropped", "near_duplicate_images", "a/3"),  # in no group
        "b/2": ("quarantined", "image_header", None),
        "b/5": ("quarantined", "clip", None),
    }
    found = compare_with_truth(ledger(decisions), scores(), truth())
    assert found["exact_duplicates"] == {"recall": 1.0, "precision": 2 / 3, "planted": 2, "decided": 3}
    assert found["near_duplicates"] == {"recall": 0.0, "precision": 0.0, "planted": 1, "decided": 2}
    assert found["corrupt"] == {"recall": 0.5, "precision": 0.5, "planted": 2, "decided": 2}


def test_a_copy_dropped_by_another_rule_is_not_found():
    decisions = {**PERFECT, "a/1": ("dropped", "dsir", None)}
    found = compare_with_truth(ledger(decisions), scores(), truth())
    assert found["exact_duplicates"] == {"recall": 0.5, "precision": 1.0, "planted": 2, "decided": 1}


def test_auc_counts_true_captions_only_and_leaves_nulls_out():
    shown = {"b/4": 0.1, "a/1": 0.05, "a/2": None, "b/5": 0.0}  # tie, below, not scored, no true caption
    found = compare_with_truth(ledger(PERFECT), scores(**shown), truth())
    assert math.isclose(found["mismatched_auc"], (3 + 0.5) / 5)  # b/1, a/3, a/4 above; b/4 tied; a/1 below


def test_nothing_planted_gives_no_rates():
    clean = truth().with_columns(pl.lit("none").alias("plant"), pl.lit(None, pl.String).alias("duplicate_of"))
    found = compare_with_truth(ledger({}), scores(), clean)
    assert found["mismatched_auc"] is None
    assert found["corrupt"] == {"recall": None, "precision": None, "planted": 0, "decided": 0}
    assert found["exact_duplicates"] == {"recall": None, "precision": None, "planted": 0, "decided": 0}


def test_another_corpus_is_refused():
    with pytest.raises(CuveeError, match="holds 10 samples of the pool, the truth 9, 9 are in both"):
        compare_with_truth(ledger({}), scores(), truth().head(9))


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), max_size=20))
def test_area_equals_brute_force(above, below):
    pairs = [(a > b) + (a == b) / 2 for a in above for b in below]
    expected = sum(pairs) / len(pairs) if pairs else None
    found = area_under_curve(np.array(above, float), np.array(below, float))
    assert found == expected or math.isclose(found, expected)
