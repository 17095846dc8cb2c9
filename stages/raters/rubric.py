"""What a rater is asked: questions with a scale of integers or with labels, from YAML."""

from collections import Counter
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import RecipeError

FOLDER = Path(__file__).with_name("rubrics")
WIDEST = 1000
"""Most integers of a scale."""


class Question(BaseModel):
    """One criterion on a scale of integers, or one choice among labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    text: str = Field(min_length=1)
    """The criterion and what the ends of its scale, or its labels, mean."""
    low: int = Field(default=0, ge=0)
    high: int = Field(default=100, ge=0)
    """Inclusive ends of the scale; without meaning where there are labels."""
    labels: tuple[str, ...] = ()
    """What may be answered instead of a number."""

    @model_validator(mode="after")
    def _answerable(self) -> "Question":
        if not self.labels and not 0 < self.high - self.low < WIDEST:
            raise ValueError(f"the scale {self.low} to {self.high} must rise, and hold at most {WIDEST} integers")
        if len(self.labels) == 1 or any(not label.strip() or label != label.strip() for label in self.labels):
            raise ValueError("`labels` are two or more words or phrases without space around them")
        if twice := [label for label, count in Counter(label.casefold() for label in self.labels).items() if count > 1]:
            raise ValueError(f"label {twice[0]!r} stands twice")
        return self

    def answers(self) -> tuple[str, ...]:
        """Every answer there is, as it is spelled."""
        return self.labels or tuple(str(number) for number in range(self.low, self.high + 1))


class Rubric(BaseModel):
    """The questions that are asked of every sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Rubric":
        names = Counter(question.name for question in self.questions)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"question {twice[0]!r} stands twice")
        return self


def built_in() -> list[str]:
    """Names of the rubrics that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_rubric(name: str) -> Rubric:
    """A rubric that comes along, by name, or one from a YAML file.

    Raises:
        RecipeError: no such rubric, no YAML, or questions that cannot be asked.
    """
    path = FOLDER / f"{name}.yaml" if name in built_in() else Path(name)
    if not path.is_file():
        raise RecipeError(f"rubric {name!r} is neither a file nor one of {', '.join(built_in())}; name a YAML file")
    return _read(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _read(path: Path, size: int, modified_ns: int) -> Rubric:
    try:
        return Rubric.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # YAML's dates and long numbers raise plain ones
        raise RecipeError(f"rubric {str(path)!r} does not fit: {error!s:.800}; see rubrics/dataman.yaml") from error
