"""What models write in place of a score, and what may be made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.raters.parser import parse_label, parse_score

ANSWERS = {
    "75": 75,
    " 75\n": 75,
    "75.": 75,
    "75.0": 75,
    "**75**": 75,
    "`75`": 75,
    "Score: 75": 75,
    "Score: 75/100": 75,
    "75 / 100": 75,
    "75 out of 100.": 75,
    "75%": 75,
    "Score - 75": 75,
    "I would give it 75 points.": 75,
    "I rate this 75, since 3 dogs are named": 75,
    "Score (0-100): 75": 75,
    "On a scale from 1 to 100: 75": 75,
    "75/100 (75%)": 75,
    "75\nThe caption names 3 dogs and 2 cats.": 75,
    "Here is my rating.\n75": 75,
    '{"score": 75}': 75,
    "<think>maybe 60, maybe 80</think>75": 75,
    "\uff17\uff15": 75,
    "\u0667\u0665": 75,
    "७५": 75,
    "得分 75分": 75,
    "7\u200b5": 75,
    "075": 75,
    "100": 100,
    "100/100": 100,
    "0": 0,
    "0/100": 0,
    "7 5": 75,
    "1 0 0": 100,
    "1 0": 10,
    "85 (The caption fits)": 85,
    "85 (out of 100)": 85,
    "**85** The caption fits": 85,
    "**85**/100": 85,
    "85 for accuracy": 85,
    "85 is my score": 85,
    "85 is right, not 100 words": 85,
    "100 out of a possible 100": 100,
    "100分満点中80分": 80,
    "得分75分": 75,
    "<score>85</score>": 85,
    "\\boxed{85}": 85,
    "A photo of 3 dogs: 85": 85,
    "On a scale from 0 (worst) to 100 (best): 85": 85,
    "75, since not all dogs are named": 75,
}
NO_ANSWERS = [
    "",
    " \n",
    "seventy-five",
    "A dog on the grass.",
    "0-100",
    "1 to 100",
    "between 0 and 100",
    "out of 100",
    "101",
    "1000",
    "9" * 5000,
    "-5",
    "−5",  # noqa: RUF001
    "Score: -5",
    "75.5",
    "75,5",
    "7,500",
    "75/10",
    "70-80",
    "70–80",  # noqa: RUF001
    "70 or 80",
    "7 5 5",
    "72 81",
    "3 dogs",
    "There are 3 dogs",
    "GPT4",
    "1e2",
    "75²",
    "75½",
    "<think>it is 75",
    "10/10",
    "**10**/10",
    "10 out of 10",
    "10 out of a 10",
    "1 of 4",
    "70 to 80",
    "70% to 80%",
    "**70**-**80**",
    "70.5 to 80",
    "60 to 70 I think",
    "10分満点中10分",
    "I am 100% sure that this deserves a low score",
    "less than 85",
    "at most 20",
    "above 90",
    "<85",
    "not a 100",
    "not **100**",
    "I cannot give this a 100",
    "I wouldn't give it 100",
    "I'm sorry, I can't help with that. (code 13)",
    "I’m sorry, I can’t help with that. (code 13)",  # noqa: RUF001
    "**3** dogs",
    "3 **dogs**",
    "GPT_4",
]


@pytest.mark.parametrize(("text", "score"), ANSWERS.items())
def test_an_answer_is_read(text: str, score: int) -> None:
    assert parse_score(text, 0, 100) == score


@pytest.mark.parametrize("text", NO_ANSWERS, ids=lambda text: text[:20])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert parse_score(text, 0, 100) is None


@pytest.mark.parametrize(
    ("text", "score"),
    {
        "I would rate it with an 8": None,
        "I would rate it with a 10": None,
        "1 0": None,
        "85.": None,
        "85,": None,
        "85": 85,
        "100": 100,
        "8 because": 8,
        "8\n": 8,
        "8\nIt names 3": 8,
    }.items(),
)
def test_a_number_that_is_cut_is_none(text: str, score: int | None) -> None:
    assert parse_score(text, 0, 100, cut=True) == score
    assert parse_score(text, 0, 100) is not None


def test_a_short_scale() -> None:
    assert [parse_score(text, 1, 5) for text in ("4", "4/5", "Rating (1-5): 4", "5", "1")] == [4, 4, 4, 5, 1]
    assert [parse_score(text, 1, 5) for text in ("0", "6", "4 5", "80%", "1-5", "4/100")] == [None] * 6
    said = ("Score: 4 (mostly right)", "4 stars", "4 stars out of 5", "4 (good)", "4 of 5")
    assert [parse_score(text, 1, 5) for text in said] == [4] * 5
    assert [parse_score(text, 1, 5) for text in ("3 to 4", "4/10", "3 of 5 details", "3/4")] == [None] * 4
    assert parse_score("-2", -3, 3) == -2


@given(st.text(max_size=80), st.integers(-3, 3), st.integers(4, 1000))
def test_any_text_gives_a_score_of_the_scale_or_none(text: str, low: int, high: int) -> None:
    score = parse_score(text, low, high)
    assert score is None or low <= score <= high


@given(
    st.integers(0, 100),
    st.sampled_from(["{}", "Score: {}", "{}/100", "{} out of 100", "**{}**.", "The score is {}.", "{}\nwhy: 3 dogs"]),
)
def test_every_score_of_the_scale_can_be_said(score: int, form: str) -> None:
    assert parse_score(form.format(score), 0, 100) == score


@given(st.lists(st.integers(0, 100), min_size=2, max_size=3, unique=True))
def test_several_numbers_are_no_answer(scores: list[int]) -> None:
    assert parse_score(", ".join(map(str, scores)), 0, 100) is None


LABELS = ["Science", "Computer Science", "Law", "C++", "Other/None"]


@pytest.mark.parametrize(
    ("text", "label"),
    {
        "Law": "Law",
        "law.": "Law",
        "**Law**": "Law",
        "Domain: computer  science": "Computer Science",
        "Sure.\nScience\nnot Law": "Science",
        "c++": "C++",
        "other/none": "Other/None",
        "Lawn": None,
        "": None,
        "Law or Science": None,
        "Cooking": None,
        "Not Law": None,
        "none of Law": None,
        "It isn't Law": None,
        "Law, not art": "Law",
    }.items(),
)
def test_a_label_is_read(text: str, label: str | None) -> None:
    assert parse_label(text, LABELS) == label


@given(st.text(max_size=60))
def test_any_text_gives_a_known_label_or_none(text: str) -> None:
    assert parse_label(text, LABELS) in {*LABELS, None}
