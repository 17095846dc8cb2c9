"""Which trials there are: designed mixtures x budgets x seeds, each with an address of all it depends on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.fingerprints import fingerprint
from pipeline.mix import natural_shares
from pipeline.trials.pilot import Pilot, Trial
from pipeline.trials.split import Split
from schemas.errors import RecipeError
from schemas.recipe import Trials
from schemas.tables import POOL_ROLE
from stages.mixture.designs import Design, design

Doubles = npt.NDArray[np.float64]
DECIMALS = 9
"""Of a share."""


@dataclass(frozen=True)
class Plan:
    """What will be run."""

    sources: tuple[str, ...]
    """(S,) by name."""
    prior: Doubles
    upper: Doubles
    """(S,) largest shares that keep the repeats below the cap at the largest budget."""
    mixtures: Doubles
    """(n, S)."""
    budgets: tuple[int, ...]
    """Samples drawn: whole batches."""
    trials: tuple[Trial, ...]
    """In the order in which they are begun: after a kill, small budgets and early seeds are there for every mixture."""


def whole_budgets(trials: Trials, pilot: Pilot) -> tuple[int, ...]:
    """The budgets, rounded up to whole batches.

    Raises:
        RecipeError: two of them are the same then.
    """
    drawn = tuple(pilot.drawn(budget) for budget in trials.budgets)
    if len(set(drawn)) < len(drawn):
        raise RecipeError(
            f"trials: `budgets` {list(trials.budgets)} are {list(drawn)} samples in whole batches; "
            "set them further apart"
        )
    return drawn


def make_plan(trials: Trials, scheme: Design, pilot: Pilot, split: Split, seed: int, data: str) -> Plan:
    """Design the mixtures.

    Args:
        trials: the recipe's section.
        scheme: how mixtures are chosen.
        pilot: what is trained.
        split: what is drawn from.
        seed: of the recipe.
        data: fingerprint of everything else that a trial depends on.

    Raises:
        CuveeError: the repetition cap leaves no mixture at the largest budget, or too few, with the numbers.
    """
    budgets = whole_budgets(trials, pilot)
    sources = tuple(sorted(split.drawn_from))
    counts = np.array([len(split.drawn_from[name]) for name in sources], np.float64)
    # The sampler is less than one sample from the exact share: one less than the cap keeps it.
    upper = np.minimum((trials.max_repeats * counts - 1) / budgets[-1], 1.0)
    prior = _prior(trials, split, sources)
    mixtures = _rounded(design(scheme, sources, trials.count, prior, seed, upper))
    runs = tuple(
        _trial(sources, mixtures, number, budget, run, data)
        for budget in budgets
        for run in range(trials.seeds)
        for number in range(len(mixtures))
    )
    return Plan(sources, prior, upper, mixtures, budgets, runs)


def _prior(trials: Trials, split: Split, sources: tuple[str, ...]) -> Doubles:
    if trials.prior == "uniform":
        return np.full(len(sources), 1 / len(sources))
    chosen = split.chosen
    sound = chosen.table.samples.filter(pl.col("role") == POOL_ROLE).join(chosen.quarantined, on="uid", how="anti")
    shares = natural_shares(dict(sound.group_by("source").len().sort("source").iter_rows()))
    found = np.array([shares[name] for name in sources])
    return np.asarray(found / found.sum(), np.float64)


def _rounded(mixtures: Doubles) -> Doubles:
    """Shares of `DECIMALS` decimals; the largest takes what rounding leaves."""
    shares: Doubles = np.maximum(mixtures, 0.0).round(DECIMALS)
    largest = shares.argmax(axis=1)
    rows = np.arange(len(shares))
    shares[rows, largest] = (shares[rows, largest] + 1 - shares.sum(axis=1)).round(DECIMALS)
    return shares


def _trial(sources: tuple[str, ...], mixtures: Doubles, number: int, budget: int, run: int, data: str) -> Trial:
    shares = dict(zip(sources, mixtures[number].tolist(), strict=True))
    digits = max(3, len(str(len(mixtures) - 1)))
    name = f"m{number:0{digits}d}-{budget}-{run}"
    return Trial(name, shares, budget, run, fingerprint([data, shares, budget, run]))
