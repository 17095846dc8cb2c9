"""Every selector judged on the same survivors at the same budget, each remembered under its address like any rule."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.select import Decision, Selected, after, decide, survivors
from schemas.columns import CAPTION
from schemas.errors import ContractError, CuveeError
from schemas.recipe import CHANCE, Compare
from stages.budget import TOKENS, Budget
from stages.selector import Selector

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """What one selector keeps."""

    name: str
    selector: Selector
    address: str
    decision: Decision
    kept: Mask
    """(n,) of the survivors in uid order."""


@dataclass(frozen=True)
class Contest:
    """All selectors on one set of rows."""

    chosen: Selected
    budget: Budget
    """A fraction has become samples: so many for all, whatever each of them can rank."""
    tokens: Integers
    """(n,) of each survivor's caption."""
    choices: tuple[Choice, ...]
    draws: tuple[Choice, ...]
    """Random ones, by one seed after another from the recipe's on."""

    @property
    def chance(self) -> str:
        """Name of the selector that draws at random."""
        return next(choice.name for choice in self.choices if choice.selector.kind == CHANCE)

    def named_addresses(self) -> list[tuple[str, str]]:
        """Of everything that was decided, by the names under which measures of it are kept."""
        return [(choice.name, choice.address) for choice in (*self.choices, *self.draws)]


def hold(chosen: Selected, progress: Callable[[str, int, int], None] = lambda *_: None) -> Contest:
    """Let every selector of `compare` choose among the survivors.

    Raises:
        CuveeError: the budget is more than there is, with both numbers; or what a selector refuses.
        ContractError: a selector keeps another number of rows than the budget says.
    """
    compare = chosen.table.resolved.recipe.compare
    assert compare is not None
    tokens = _tokens(chosen)
    budget = _budget(compare, tokens)
    pending = list(_pending(chosen, compare, budget))
    found = []
    for number, (name, selector, seed) in enumerate(pending):
        progress("compare", number, len(pending))
        found.append(_choice(chosen, name, selector, seed))
        _refuse_other_budget(found[-1])
    progress("compare", len(pending), len(pending))
    listed = len(chosen.table.resolved.contenders)
    return Contest(chosen, budget, tokens, tuple(found[:listed]), tuple(found[listed:]))


def _tokens(chosen: Selected) -> Integers:
    rows, _ = survivors(chosen, [CAPTION.name])
    counted: Integers = rows.select("uid", TOKENS).collect().sort("uid")["tokens"].to_numpy()
    return counted


def _budget(compare: Compare, tokens: Integers) -> Budget:
    asked = Budget.model_validate(compare.settings())
    try:
        rows = asked.rows(len(tokens), int(tokens.sum()))
    except CuveeError as error:
        raise type(error)(f"compare: {error}") from error
    return asked if asked.fraction is None else Budget.model_validate({"samples": rows})


def _pending(chosen: Selected, compare: Compare, budget: Budget) -> Iterator[tuple[str, Selector, int]]:
    """(name, selector, seed): those of the recipe, then the random draws."""
    recipe, named = chosen.table.resolved.recipe, dict.fromkeys(Budget.model_fields) | budget.facts()
    fixed = {name: s.model_copy(update=named) for name, s in chosen.table.resolved.contenders.items()}
    yield from ((name, selector, recipe.seed) for name, selector in fixed.items())
    chance = next(selector for selector in fixed.values() if selector.kind == CHANCE)
    yield from ((f"draw {number}", chance, recipe.seed + number) for number in range(compare.draws))


def _choice(chosen: Selected, name: str, selector: Selector, seed: int) -> Choice:
    usual = seed == chosen.table.resolved.recipe.seed
    address = after(chosen, selector, *([] if usual else [seed]))
    try:
        decision = decide(chosen, selector, name, address, seed=seed)
    except CuveeError as error:
        raise type(error)(f"compare, {name!r}: {error}") from error
    gone = decision.verdict.dropped.select("uid")
    kept = chosen.survivors.select(pl.col("uid").is_in(gone["uid"].implode()).not_())["uid"].to_numpy()
    return Choice(name, selector, address, decision, kept)


def _refuse_other_budget(choice: Choice) -> None:
    kept, wanted, dropped = int(choice.kept.sum()), choice.selector.samples, len(choice.decision.verdict.dropped)
    if kept + dropped != len(choice.kept) or wanted not in (None, kept):
        raise ContractError(
            f"selector {choice.name!r} keeps {kept} and drops {dropped} of {len(choice.kept)} rows, for {wanted}"
        )
