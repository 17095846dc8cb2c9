"""Laws of RegMix's published runs: Spearman and MAE on its test runs, per loss and number of runs, beside LightGBM.

Fitted to n of the 512 training runs at 1M parameters, tested on the 256 test runs, 13 validation losses. Ours is what
`chosen` takes among `--laws` per loss, by mixtures left out of those n runs. LightGBM twice, both with RegMix's
settings (1,000 trees at most, learning rate 0.01, seed 42): `stopped` listens to an eighth of its runs with 3 rounds of
patience and learns from the rest, `grown` has all trees on all runs. (RegMix stops on the test runs.)

Subset 0 is the first n runs, the others are drawn by their number. Medians over subsets, with the range.
`--larger` tests on runs of a larger model as well: pairs of files (mixtures, losses), whose losses may be fewer.

python bench/mixture_laws.py DATA [--runs 32 64 128 256] [--subsets 3] [--laws ...] [--methods ...]
    [--larger MIXTURES LOSSES]
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from stages.mixture.predictors import PREDICTORS, chosen, stacked
from stages.mixture.predictors.folds import mixture_groups

Doubles = npt.NDArray[np.float64]
Fit = Callable[[Doubles, Doubles, Doubles], Doubles]
"""Mixtures and values (n,) of runs, mixtures that are asked for -> their values."""
LAWS = ("log_linear", "gaussian_process")
TREES = 1000
PATIENCE = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with regmix_{train,test}_{mixture,pile_loss}_1m.csv")
    parser.add_argument("--runs", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--subsets", type=int, default=3)
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=list(PREDICTORS))
    known = ["chosen", "stacked", "stopped", "grown", *PREDICTORS]
    parser.add_argument("--methods", nargs="+", default=["chosen", "stopped", "grown"], choices=known)
    parser.add_argument("--larger", type=Path, nargs=2, default=None)
    given = parser.parse_args()
    learned, losses, names = read(given.data, "train")
    tests = {"1M": read(given.data, "test")}
    if given.larger is not None:
        tests["larger"] = read_pair(*given.larger)
    fits: dict[str, Fit] = {"chosen": choosing(given.laws), "stacked": stacking(given.laws)}
    fits |= {"stopped": stopped, "grown": grown, **{name: alone(name) for name in PREDICTORS}}
    fits = {name: fits[name] for name in given.methods}
    table = Table(learned, losses, names, tests, fits)
    for runs in given.runs:
        for name in fits:
            table.add(name, runs, subsets(len(learned), runs, given.subsets))
    table.per_loss(given.runs)


def read(folder: Path, split: str) -> tuple[Doubles, Doubles, list[str]]:
    """Mixtures (n, S), losses (n, M), the losses' names."""
    return read_pair(folder / f"regmix_{split}_mixture_1m.csv", folder / f"regmix_{split}_pile_loss_1m.csv")


def read_pair(mixtures: Path, losses: Path) -> tuple[Doubles, Doubles, list[str]]:
    shares = np.loadtxt(mixtures, delimiter=",", skiprows=1)[:, 1:]
    values = np.loadtxt(losses, delimiter=",", skiprows=1)[:, 1:]
    header = losses.read_text().split("\n", 1)[0].strip().split(",")[1:]
    names = [name.removeprefix("metric/").removeprefix("the_pile_").removesuffix("_val_loss") for name in header]
    return shares / shares.sum(axis=1, keepdims=True), values, names


def subsets(available: int, runs: int, count: int) -> list[npt.NDArray[np.int64]]:
    """The first `runs`, then draws; one where there is only one."""
    drawn = [np.random.default_rng(seed).permutation(available)[:runs] for seed in range(1, count)]
    return [np.arange(runs), *(drawn if runs < available else [])]


def choosing(laws: list[str]) -> Fit:
    def fit(shares: Doubles, values: Doubles, asked: Doubles) -> Doubles:
        return chosen(shares, values, mixture_groups(shares), laws, seed=0).predictor.predict(asked)

    return fit


def stacking(laws: list[str]) -> Fit:
    def fit(shares: Doubles, values: Doubles, asked: Doubles) -> Doubles:
        return stacked(shares, values, mixture_groups(shares), laws, seed=0).predictor.predict(asked)

    return fit


def alone(law: str) -> Fit:
    return lambda shares, values, asked: PREDICTORS[law](shares, values, seed=0).predict(asked)


def stopped(shares: Doubles, values: Doubles, asked: Doubles) -> Doubles:
    """LightGBM as RegMix sets it, with a validation split of its own."""
    import lightgbm

    cut = len(shares) - len(shares) // 8
    held = lightgbm.Dataset(shares[cut:], values[cut:])
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    data = lightgbm.Dataset(shares[:cut], values[:cut])
    forest = lightgbm.train(settings(), data, TREES, valid_sets=[held], callbacks=[stop])
    return np.asarray(forest.predict(asked, num_threads=1), np.float64)


def grown(shares: Doubles, values: Doubles, asked: Doubles) -> Doubles:
    """LightGBM as RegMix sets it, with all its trees."""
    import lightgbm

    forest = lightgbm.train(settings(), lightgbm.Dataset(shares, values), TREES)
    return np.asarray(forest.predict(asked, num_threads=1), np.float64)


def settings() -> dict[str, Any]:
    return {"objective": "regression", "learning_rate": 0.01, "seed": 42, "num_threads": 1, "verbosity": -1}


def rank(one: Doubles, other: Doubles) -> float:
    """Spearman x 100; 0 for a constant."""
    return 100 * float(spearmanr(one, other).statistic) if np.ptp(one) > 0 else 0.0


class Table:
    """Scores by method and number of runs."""

    def __init__(
        self,
        learned: Doubles,
        losses: Doubles,
        names: list[str],
        tests: Mapping[str, tuple[Doubles, Doubles, list[str]]],
        fits: Mapping[str, Fit],
    ) -> None:
        self.learned, self.losses, self.names, self.tests, self.fits = learned, losses, names, tests, fits
        self.scores: dict[tuple[str, int], npt.NDArray[np.float64]] = {}
        print("| law | runs | tested at | Spearman, mean of losses | lowest | pile_cc | MAE, mean | CPU s per loss |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")

    def add(self, method: str, runs: int, rows: list[npt.NDArray[np.int64]]) -> None:
        start = process_time()
        asked = np.vstack([mixtures for mixtures, _, _ in self.tests.values()])
        fit = self.fits[method]
        found = [np.stack([fit(self.learned[r], losses, asked) for losses in self.losses[r].T], axis=1) for r in rows]
        seconds = (process_time() - start) / len(rows) / len(self.names)
        first = 0
        for where, (mixtures, values, names) in self.tests.items():
            columns = [self.names.index(name) for name in names]
            parts = [each[first : first + len(mixtures), columns] for each in found]
            first += len(mixtures)
            self.row(method, runs, where, parts, values, names, seconds)

    def row(
        self,
        method: str,
        runs: int,
        where: str,
        found: list[Doubles],
        values: Doubles,
        names: list[str],
        seconds: float,
    ) -> None:
        ranks = np.array([[rank(a, b) for a, b in zip(each.T, values.T, strict=True)] for each in found])
        wrong = np.array([np.abs(each - values).mean(axis=0) for each in found])
        if where == "1M":
            self.scores[method, runs] = np.stack([np.median(ranks, axis=0), np.median(wrong, axis=0)])
        cells = [spread(ranks.mean(axis=1)), spread(ranks.min(axis=1)), spread(ranks[:, names.index("pile_cc")])]
        error = f"{np.median(wrong.mean(axis=1)):.4f}"
        print(f"| {method} | {runs} | {where} | {' | '.join(cells)} | {error} | {seconds:.2f} |", flush=True)

    def per_loss(self, runs: list[int]) -> None:
        print(
            f"\nSpearman x 100 (MAE) at 1M: {', '.join(self.fits)}\n\n| loss | "
            + " | ".join(f"{n}" for n in runs)
            + " |"
        )
        print("| --- |" + " --- |" * len(runs))
        for k, name in enumerate(self.names):
            cells = [
                " / ".join(
                    f"{self.scores[method, n][0, k]:.1f} ({self.scores[method, n][1, k]:.3f})" for method in self.fits
                )
                for n in runs
            ]
            print(f"| {name} | {' | '.join(cells)} |")


def spread(values: Doubles) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:.2f}" if len(values) == 1 else f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
