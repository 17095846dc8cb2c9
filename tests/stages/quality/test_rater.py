"""A rater by a rubric of one's own."""

from pathlib import Path

import pytest

from schemas.errors import RecipeError
from stages.quality.rater import RubricRater


@pytest.mark.parametrize("name", ["invalid", "reason"])
def test_a_question_named_as_a_column_of_the_stage_is_refused(name: str, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text(f"questions:\n  - {{name: {name}, low: 1, high: 5, text: x}}\n")
    backend = {"kind": "openai", "model": "m", "api_key_env": None}
    with pytest.raises(RecipeError, match=f"question '{name}'"):
        RubricRater.model_validate({"rubric": str(rubric), "backend": backend}).check()
