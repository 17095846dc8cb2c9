"""What training computes once because it never changes, and which options change it: they are refused together.

A cached constant that is no longer one gives wrong numbers and no error, so that every pair stands in one table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import RecipeError

if TYPE_CHECKING:
    from stages.train.settings import TrainSettings

Asked = Callable[["TrainSettings"], str | None]
"""What a run's settings say, as it would be written; None where they do not."""


@dataclass(frozen=True)
class Constant:
    """Something computed once."""

    what: str
    used: Asked
    """The setting that relies on it."""
    instead: str
    """What to do where it is broken."""


@dataclass(frozen=True)
class Change:
    """A setting that may change a constant."""

    asked: Asked
    breaks: frozenset[str]
    """Names of constants."""


def refuse_broken(settings: "TrainSettings") -> None:
    """Refuse settings of which one changes what another computes once.

    Raises:
        RecipeError: with both settings and what to do.
    """
    for change in CHANGES.values():
        for name in sorted(change.breaks):
            constant = CONSTANTS[name]
            changed, used = change.asked(settings), constant.used(settings)
            if changed is not None and used is not None:
                raise RecipeError(
                    f"`{changed}` changes {constant.what}, which `{used}` computes once; {constant.instead}"
                )
