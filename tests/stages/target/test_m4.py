"""The selector: whole rows, within the bounds; what cannot be is refused."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit
from stages.rule import Context, Verdict
from stages.target.m4 import M4

WOMAN = {"column": "person", "value": "woman", "share": 0.5}
NURSE = {"column": "concept_nurse", "at_least": 0.25}
OUTDOORS = {"column": "outdoors", "value": True}


def people(rows: int, seed: int) -> pl.DataFrame:
    """A quarter women; nurses are women, the outdoors belong to men."""
    noise = np.random.default_rng(seed)
    woman = noise.random(rows) < 0.25
    nurse = noise.random(rows) < np.where(woman, 0.5, 0.1)
    return pl.DataFrame(
        {
            "uid": [f"{row:06d}" for row in range(rows)],
            "source": "s",
            "caption": ["word " * int(count) for count in noise.integers(1, 9, rows)],
            "person": np.where(woman, "woman", "man"),
            "concept_nurse": np.where(nurse, 0.3, 0.2).astype(np.float32),
            "outdoors": noise.random(rows) < np.where(woman, 0.3, 0.6),
        }
    )


def judged(rows: pl.DataFrame, pin: Fit | None = None, seed: int = 0, **settings: Any) -> Verdict:
    rule = M4(**{"sensitive": [WOMAN], "labels": [NURSE, OUTDOORS]} | settings)
    return rule.judge(rows.lazy(), Context(seed, fit=pin))


def counted(rows: pl.DataFrame) -> tuple[float, float]:
    """Representation and association bias, from the rows themselves."""
    woman = rows["person"] == "woman"
    labels = (rows["concept_nurse"] >= np.float32(0.25), rows["outdoors"])
    gaps = [abs(float(y.filter(woman).mean()) - float(y.filter(~woman).mean())) for y in labels]  # type: ignore[arg-type]
    return abs(float(woman.mean()) - 0.5), max(gaps)  # type: ignore[arg-type]


def kept(rows: pl.DataFrame, verdict: Verdict) -> pl.DataFrame:
    return rows.join(verdict.dropped, on="uid", how="anti")


@pytest.mark.parametrize("budget", [{"samples": 6000}, {"fraction": 0.2}, {"samples": 1000}])
def test_both_biases_of_the_kept_rows_are_small(budget: dict[str, Any]) -> None:
    rows = people(20_000, 0)
    assert min(counted(rows)) > 0.2
    verdict = judged(rows, **budget, association=0.005)
    chosen = kept(rows, verdict)
    assert len(chosen) == verdict.evidence["budget"]["kept"] == budget.get("samples", 4000)
    found = counted(chosen)
    assert max(found) <= 0.01
    told = verdict.evidence["bias"]
    assert (told["after"]["representation"], told["after"]["association"]) == pytest.approx(found)
    assert (told["before"]["representation"], told["before"]["association"]) == pytest.approx(counted(rows))
    assert verdict.evidence["shares"]["person=woman"]["after"] == pytest.approx(0.5, abs=1.1 / len(chosen))
    assert len(chosen) <= verdict.evidence["effective_rows"] <= 20_000


def test_a_set_of_a_row_a_pattern_is_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is not where each pattern is rounded by itself."""
    noise = np.random.default_rng(10_000)
    columns = {f"s{number}": noise.random(10_000) < 0.3 + 0.1 * number for number in range(3)}
    tied = sum(column.astype(float) for column in columns.values())
    columns |= {f"y{number}": noise.random(10_000) < 0.2 + 0.1 * tied for number in range(6)}
    rows = pl.DataFrame({"uid": [f"{row:05d}" for row in range(10_000)], "caption": "word", **columns})
    sensitive = [{"column": f"s{number}", "value": True, "share": 0.5} for number in range(3)]
    labels = [{"column": f"y{number}", "value": True} for number in range(6)]
    told = judged(rows, samples=500, sensitive=sensitive, labels=labels).evidence
    assert told["patterns"] > 450 and told["bias"]["before"]["association"] > 0.05
    assert told["bias"]["after"]["representation"] < 0.0025 and told["bias"]["after"]["association"] <= 0.01
    monkeypatch.setattr("stages.target.m4.rule.balanced", lambda counts, *_: counts)
    alone = judged(rows, samples=500, sensitive=sensitive, labels=labels).evidence
    assert alone["bias"]["after"]["association"] > 0.03


def test_a_share_of_its_own_is_kept_and_only_the_tie_is_cut() -> None:
    rows = people(20_000, 1)
    verdict = judged(rows, samples=8000, sensitive=[{"column": "person", "value": "woman"}], association=0.005)
    chosen = kept(rows, verdict)
    assert float((chosen["person"] == "woman").mean()) == pytest.approx(0.25, abs=0.01)  # type: ignore[arg-type]
    assert counted(chosen)[1] <= 0.01 < counted(rows)[1]


def test_which_rows_of_a_pattern_is_chance_and_a_smaller_budget_is_spread_alike() -> None:
    rows = people(5000, 2)
    one, other = (kept(rows, judged(rows, seed=seed, samples=1000)) for seed in (0, 1))
    assert one.height == other.height and 0 < len(one.join(other, on="uid")) < 600
    spent = kept(rows, judged(rows, tokens=2000))
    assert spent["caption"].str.count_matches("word").sum() <= 2000
    assert counted(spent)[0] < 0.02 and counted(spent)[1] < 0.05


def test_a_pin_weighs_patterns_that_were_not_there() -> None:
    first = people(4000, 3).filter(~(pl.col("outdoors") & (pl.col("concept_nurse") > 0.25)))
    fit = judged(first, samples=500).fit
    rows = people(4000, 4)
    verdict = judged(rows, fit, samples=400)
    assert verdict.fit == fit and len(kept(rows, verdict)) == 400
    assert judged(first, fit, samples=500).dropped.equals(judged(first, samples=500).dropped)
    men = rows.filter(pl.col("person") == "man")
    assert len(kept(men, judged(men, fit, samples=100))) == 100


def test_what_cannot_be_is_refused_with_what_can() -> None:
    rows = people(2000, 5)
    women = int((rows["person"] == "woman").sum())
    with pytest.raises(CuveeError, match=rf"asked for 1500 of 2000 rows.*leave at most {2 * women};") as caught:
        judged(rows, samples=1500, labels=())
    assert "raise `representation`" in str(caught.value)
    assert len(kept(rows, judged(rows, samples=2 * women, labels=()))) == 2 * women
    with pytest.raises(CuveeError, match="'person=child' is true of 0 of 2000 rows"):
        judged(rows, samples=10, sensitive=[{"column": "person", "value": "child"}])
    with pytest.raises(RecipeError, match="holds Float32; compare it by `at_least`"):
        judged(rows, samples=10, labels=[{"column": "concept_nurse", "value": "yes"}])
    with pytest.raises(RecipeError, match="in YAML, no and yes need quotes"):
        judged(rows, samples=10, labels=[{"column": "person", "value": True}])
    with pytest.raises(RecipeError, match="holds String; compare it by `value`"):
        judged(rows, samples=10, labels=[{"column": "person", "at_least": 1}])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sensitive": []}, "at least 1"),
        ({"sensitive": [WOMAN], "labels": [{"column": "person", "value": "woman"}]}, "named twice"),
        ({"sensitive": [{"column": "person"}]}, "name one of them"),
        ({"sensitive": [WOMAN | {"share": 1.0}]}, "less than 1"),
        ({"sensitive": [{"column": "clip_score", "value": "high"}]}, "compare it by `at_least`"),
        ({"sensitive": [{"column": "language", "at_least": 0.5}]}, "compare it by `value`"),
        ({"sensitive": [WOMAN], "labels": [{"column": "own", "at_least": n} for n in range(62)]}, "at most 62"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        M4(samples=1, **settings)


@pytest.mark.parametrize("tokens", [1000, 4000])
def test_evidence_of_a_budget_of_tokens_is_of_the_rows_it_paid_for(tokens: int) -> None:
    """Where women's captions are five times as long, a budget buys another number of rows than mean lengths would."""
    rows = people(5000, 6).with_columns(
        pl.when(pl.col("person") == "woman").then(pl.lit("word " * 20)).otherwise(pl.lit("word " * 4)).alias("caption")
    )
    verdict = judged(rows, tokens=tokens)
    chosen, told = kept(rows, verdict), verdict.evidence
    assert len(chosen) == told["budget"]["kept"] < 0.8 * tokens * 5000 / rows["caption"].str.count_matches("word").sum()
    assert (told["bias"]["after"]["representation"], told["bias"]["after"]["association"]) == pytest.approx(
        counted(chosen)
    )
    assert told["shares"]["person=woman"]["after"] == pytest.approx((chosen["person"] == "woman").mean())
    pattern = ["person", pl.col("concept_nurse") >= np.float32(0.25), "outdoors"]
    there, taken = (table.group_by(pattern).len() for table in (rows, chosen))
    both = there.join(taken, on=["person", "concept_nurse", "outdoors"], how="left").fill_null(0)
    share = both["len_right"] / both["len"]
    assert told["kept_of_a_pattern"] == {"least": share.min(), "most": share.max()}
    assert told["effective_rows"] == pytest.approx(len(chosen) ** 2 / (both["len_right"] * share).sum())
