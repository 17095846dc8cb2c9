"""Tables of runs whose law is known."""

from collections.abc import Callable, Sequence

import numpy as np

from stages.mixer import MixtureEvidence, SourceEvidence
from stages.mixture.trials_table import TrialsTable, write_trials
from stages.mixture.trials_table.table import Doubles

Law = Callable[[Doubles], Doubles]
NAMES = ("art", "books", "cars", "dogs")
SLOPES = {"nll.target": (-1.5, -0.5, 0.0, 1.5), "nll.books": (0.5, -2.0, 0.3, 0.4)}
"""Art helps the target most and dogs harm it; books help books alone."""


def law(metric: str) -> Law:
    slopes = np.array(SLOPES[metric])
    return lambda shares: 2.0 + np.exp(shares @ slopes)


def table(
    metrics: Sequence[str] = ("nll.target",),
    count: int = 32,
    noise: float = 0.002,
    budgets: Sequence[int] = (1000,),
    names: Sequence[str] = NAMES,
    seed: int = 0,
) -> TrialsTable:
    rng = np.random.default_rng(seed)
    points = rng.dirichlet(np.ones(len(names)), count)
    shares = np.concatenate([points] * len(budgets))
    values = np.stack([law(metric)(shares) for metric in metrics], axis=1)
    values += rng.normal(0, noise, values.shape)
    rows = len(shares)
    return TrialsTable(
        tuple(names),
        tuple(metrics),
        tuple(f"run-{number}" for number in range(rows)),
        np.repeat(np.array(budgets, np.int64), count),
        np.zeros(rows, np.int64),
        shares,
        values,
    )


def evidence(trials: TrialsTable, rows: dict[str, int] | None = None, samples: int = 100, seed: int = 0, **changed):
    counts = dict.fromkeys(trials.sources, 100) if rows is None else rows
    sources = {
        name: SourceEvidence({}, np.ones(count), [f"{name}-{i:04d}" for i in range(count)])
        for name, count in sorted(counts.items())
    }
    natural = {name: 1 / len(trials.sources) for name in trials.sources}
    return MixtureEvidence(
        sources, {}, samples, {**natural, **changed.pop("natural", {})}, seed, trials=trials, **changed
    )


def stored(trials: TrialsTable, folder) -> str:
    write_trials(trials, folder / "trials.parquet")
    return str(folder / "trials.parquet")
