"""Reference system time (Kaddour et al., arXiv:2307.06440): what a step costs on one reference machine.

The table is measured once (`bench/rst_table.py`) and then part of the question, so that a budget in seconds means the
same training on every machine. A larger step never takes less time; a table that says so holds a slip (the published
one has 0.01052 s for 7 layers, between 0.09188 s and 0.1186 s) and is refused.
"""

from collections.abc import Iterable
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import RecipeError

Kind = Literal["forward", "train"]
"""`forward`: losses alone. `train`: losses, gradients and the optimizer's step."""


class StepTime(BaseModel):
    """Seconds of one kind of step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Language model by its shape but for its depth, from `shape_name`."""
    layers: int = Field(gt=0)
    seq: int = Field(gt=0)
    """Places of a row: visual tokens and text."""
    batch: int = Field(gt=0)
    """Rows."""
    kind: Kind
    seconds: float = Field(gt=0)
    """Mean over many steps."""

    @property
    def called(self) -> str:
        """For messages."""
        return f"({self.model}, {self.layers} layers, seq {self.seq}, batch {self.batch}, {self.kind})"


class ReferenceTable(BaseModel):
    """What was measured, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    rows: tuple[StepTime, ...] = Field(min_length=1)

    def seconds(self, model: str, layers: int, seq: int, batch: int, kind: Kind) -> float:
        """Of a step.

        Raises:
            RecipeError: no row for it, with those of this model.
        """
        wanted = (model, layers, seq, batch, kind)
        for row in self.rows:
            if (row.model, row.layers, row.seq, row.batch, row.kind) == wanted:
                return row.seconds
        near = [row.called for row in self.rows if row.model == model] or [row.called for row in self.rows]
        raise RecipeError(
            f"`reference_table` has no time of a step of {model}, {layers} layers, seq {seq}, batch {batch}, {kind}; "
            f"it has {', '.join(near[:6])}; measure it with bench/rst_table.py, or give the budget in another unit"
        )


@cache
def read_table(path: Path) -> ReferenceTable:
    """A table of reference times.

    Raises:
        RecipeError: no such table, or one in which more work takes less time.
    """
    try:
        table = ReferenceTable.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise RecipeError(f"`reference_table` {str(path)!r} is no table of step times: {error}") from error
    for name in ("layers", "seq", "batch", "kind"):
        _refuse_falling(table.rows, name, path)
    return table


def _refuse_falling(rows: Iterable[StepTime], name: str, path: Path) -> None:
    def others(row: StepTime) -> list[Any]:
        return [str(value) for field, value in row if field not in (name, "seconds")]

    ordered = sorted(rows, key=lambda row: (others(row), getattr(row, name)))
    for _, alike in groupby(ordered, key=others):
        group = list(alike)
        for less, more in pairwise(group):
            if getattr(less, name) == getattr(more, name) or less.seconds > more.seconds:
                raise RecipeError(
                    f"`reference_table` {str(path)!r} says {less.seconds} s for {less.called} and {more.seconds} s for "
                    f"{more.called}: more work cannot take less time; measure these rows again"
                )


def shape_name(config: Any) -> str:
    """A transformers language model by what its time depends on, its depth left out."""
    return f"{config.model_type}-hidden{config.hidden_size}-vocabulary{config.vocab_size}"
