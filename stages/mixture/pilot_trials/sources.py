"""The sources of the table and those of the pool: they have to be the same, and some may keep their ratios."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from schemas.errors import CuveeError, RecipeError
from stages.mixture.trials_table.table import Doubles


def refuse_others(table: Sequence[str], pool: Sequence[str]) -> None:
    """The table and the pool have the same sources.

    Raises:
        RecipeError: one of them has a source that the other does not have.
    """
    if strange := sorted(set(table) - set(pool)):
        close = get_close_matches(strange[0], pool, 1, 0.6)
        hint = f"did you mean {close[0]!r}? If not, " if close else ""
        raise RecipeError(
            f"the trials drew from {_listed(strange)}, which the pool does not have ({', '.join(pool):.200}); {hint}"
            "add the source, or drop its column and the runs that drew from it"
        )
    if unknown := sorted(set(pool) - set(table)):
        raise RecipeError(
            f"the pool has {_listed(unknown)}, which no trial drew from: the table needs a column "
            f"`share.{unknown[0]}` and runs that vary it; take the source out of the pool, or run trials with it"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def refuse_reuse(reuse: Mapping[str, float], pool: Sequence[str]) -> None:
    """What is reused are shares of old sources, and there is a new one.

    Raises:
        RecipeError: an unknown source, no share above 0, or no source beside them.
    """
    if strange := sorted(set(reuse) - set(pool)):
        raise RecipeError(f"`reuse` names {_listed(strange)}, which the pool does not have; it has {', '.join(pool)}")
    if not sum(reuse.values()) > 0:
        raise RecipeError(f"`reuse` gives no source a share above 0, found {dict(reuse)}")
    if set(reuse) >= set(pool):
        raise RecipeError(
            "`reuse` names every source of the pool, so nothing is left to choose; name only the old ones"
        )


def basis_of(sources: Sequence[str], present: Sequence[str], reuse: Mapping[str, float] | None) -> Doubles:
    """(S, k) what can be mixed: a column per source that is there; those reused share one column, in their ratios.

    Raises:
        CuveeError: none of the reused sources has rows.
    """
    columns = np.eye(len(sources))[:, [sources.index(name) for name in present if name not in (reuse or {})]]
    if reuse is None:
        return columns
    kept = np.array([reuse.get(name, 0.0) if name in present else 0.0 for name in sources])
    if not kept.sum() > 0:
        raise CuveeError(f"none of the sources in `reuse` has surviving rows ({', '.join(reuse)}); leave it out")
    return np.column_stack([kept / kept.sum(), columns])
