"""Rubrics from YAML."""

from pathlib import Path

import pytest

from schemas.errors import RecipeError
from stages.raters.rubric import built_in, load_rubric


def test_what_comes_along() -> None:
    assert built_in() == ["dataman", "mlm_filter"]
    filter_questions = load_rubric("mlm_filter").questions
    assert [(q.low, q.high) for q in filter_questions] == [(0, 100)] * 4
    *criteria, domain = load_rubric("dataman").questions
    assert len(criteria) == 14 and all((q.low, q.high) == (1, 5) for q in criteria)
    assert len(domain.labels) == 15


def test_one_of_your_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("questions:\n  - {name: fit, text: 'Does it fit?', low: 1, high: 3}\n")
    assert load_rubric(str(file)).questions[0].answers() == ("1", "2", "3")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("questions: []", "at least 1 item"),
        ("questions: [{name: Fit, text: x}]", "pattern"),
        ("questions: [{name: a, text: x, low: 5, high: 5}]", "must rise"),
        ("questions: [{name: a, text: x}, {name: a, text: y}]", "stands twice"),
        ("questions: [{name: a, text: x, labels: [one, One]}]", "stands twice"),
        ("questions: [{name: a, text: x, labels: [one]}]", "two or more"),
        ("questions: [", "does not fit"),
        ("name: x", "Field required"),
        ("questions: [{name: a, text: 2020-13-45}]", "month must be in"),
        (f"questions: [{{name: a, text: x, high: {'9' * 5000}}}]", "does not fit"),
        ("[" * 5000, "does not fit"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_rubric(str(file))


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(RecipeError, match="dataman, mlm_filter"):
        load_rubric("dataman2")
