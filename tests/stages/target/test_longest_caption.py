import polars as pl
import pytest

from stages.rule import Context, Verdict
from stages.target.longest_caption import LongestCaption

CAPTIONS = ["a dog", None, "a dog, asleep on a red sofa", "", "dog", "naïve café!", " \t", "a red dog"]
ROWS = pl.DataFrame({"uid": [f"{row}" for row in range(8)], "source": "s", "caption": CAPTIONS})


def judged(**budget: int) -> Verdict:
    return LongestCaption(**budget).judge(ROWS.lazy(), Context(0))  # type: ignore[arg-type]


def test_most_tokens_first_whatever_the_number_of_characters() -> None:
    verdict = judged(samples=2)
    reasons = dict(verdict.dropped.select("uid", "reason").iter_rows())
    assert {uid for uid, reason in reasons.items() if reason == "caption_missing"} == {"1", "3", "6"}
    assert verdict.scores is not None
    assert dict(verdict.scores.iter_rows()) == {"0": 2, "2": 8, "4": 1, "5": 3, "7": 3}
    assert "2" not in reasons and verdict.evidence["border"] == 3
    assert verdict.evidence["mean_tokens"] == pytest.approx(17 / 5)
    assert verdict.evidence["mean_tokens_kept"] == 5.5


def test_a_budget_of_tokens_is_spent_on_the_longest() -> None:
    verdict = judged(tokens=11)
    assert verdict.evidence["budget"]["kept"] == 2 and verdict.evidence["mean_tokens_kept"] == 5.5
