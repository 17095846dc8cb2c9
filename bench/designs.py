"""Which design tells most about mixtures it did not try: laws fitted to its trials, tested on random mixtures.

Trials are contrastive probes on the sources of a recipe that has a `trials` section and has been run by `cuvee trials`.
Per design and design seed, `count` mixtures are run with two seeds each; a law of log NLL per held-out source is fitted
to the means: `linear` in the shares (the log-linear law) and `quadratic` (Scheffe's, with ridge 1e-3 on its products).
Both are tested on mixtures drawn uniformly from the region, which no design knew. Ours: `random` is such a draw, too.

python bench/designs.py RECIPE [--counts 12 24 48] [--tests 64] [--design-seeds 3] [--budget 2048]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.trials.asked import asked
from pipeline.trials.pilot import Measured, Trial
from pipeline.trials.plan import Plan, make_plan
from pipeline.trials.split import hold_out
from stages.mixture.designs import DESIGNS, Region, design
from stages.mixture.designs.d_optimal import terms
from stages.mixture.designs.region import noise

Doubles = npt.NDArray[np.float64]
SEEDS = 2
RIDGE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--tests", type=int, default=64)
    parser.add_argument("--design-seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=2048)
    given = parser.parse_args()
    plan, do, held = prepared(given.recipe, given.budget)
    region = Region.of(plan.sources, plan.prior, plan.upper)
    worth = Worth(do, plan.sources, held, given.budget)
    tests = uniform(region, given.tests, 10_000)
    truth = worth.of(tests)
    print(f"{len(tests)} test mixtures of {', '.join(plan.sources)}; held out: {', '.join(held)}")
    print("| design | mixtures | linear: MAE | Spearman | quadratic: MAE | Spearman |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in given.counts:
        for kind in (*sorted({*DESIGNS} - {"given"}), "random"):
            scores = [tested(region, kind, count, seed, worth, tests, truth) for seed in range(given.design_seeds)]
            cells = [cell(np.array(values)) for values in zip(*scores, strict=True)]
            print(f"| {kind} | {count} | {' | '.join(cells)} |", flush=True)
    print(f"{worth.runs} trials of {given.budget} samples, {worth.seconds / worth.runs:.3f} s of CPU each")


def prepared(recipe: Path, budget: int) -> tuple[Plan, Callable[[Trial], Measured], list[str]]:
    """The recipe's own plan (for its region), and its probe, opened in this process."""
    from pipeline.run import Clock, begin

    resolved = resolve(recipe)
    made = asked(resolved)
    with Cluster() as cluster:
        chosen = begin(resolved, cluster, Clock(), lambda _: True, lambda *_: None).chosen
        split = hold_out(chosen, made.trials.model_copy(update={"budgets": (budget // 4, budget)}))
        plan = make_plan(made.trials, made.design, made.pilot, split, resolved.recipe.seed, "bench")
        bench, _ = made.pilot.prepare(split, resolved.workspace.fit("trials-bench-designs"), cluster, lambda *_: None)
    return plan, bench.open(), sorted(split.held)


class Worth:
    """log NLL per held-out source of mixtures, the mean over seeds; equal mixtures are run once."""

    def __init__(self, do: Callable[[Trial], Measured], sources: tuple[str, ...], held: list[str], budget: int) -> None:
        self.do, self.sources, self.held, self.budget = do, sources, held, budget
        self.known: dict[bytes, Doubles] = {}
        self.runs, self.seconds = 0, 0.0

    def of(self, mixtures: Doubles) -> Doubles:
        return np.array([self._one(mixture) for mixture in mixtures])

    def _one(self, mixture: Doubles) -> Doubles:
        key = mixture.round(9).tobytes()
        if key not in self.known:
            began = process_time()
            runs = [self._run(mixture, seed) for seed in range(SEEDS)]
            self.seconds += process_time() - began
            self.runs += SEEDS
            self.known[key] = np.log(np.mean(runs, axis=0))
        return self.known[key]

    def _run(self, mixture: Doubles, seed: int) -> list[float]:
        shares = dict(zip(self.sources, mixture.tolist(), strict=True))
        found = self.do(Trial("bench", shares, self.budget, seed, ""))
        return [found.metrics[name]["nll"] for name in self.held]


def uniform(region: Region, count: int, seed: int) -> Doubles:
    """(count, S) mixtures, uniform over the region: draws outside are drawn again."""
    random, found = noise(seed, "bench"), np.empty((0, region.size))
    while len(found) < count:
        drawn = random.dirichlet(np.ones(region.size), 256)
        found = np.vstack([found, drawn[region.holds(drawn)]])
    return found[:count]


def tested(
    region: Region, kind: str, count: int, seed: int, worth: Worth, tests: Doubles, truth: Doubles
) -> tuple[float, float, float, float]:
    if kind == "random":
        mixtures = uniform(region, count, seed)
    else:
        mixtures = design(kind, region.sources, count, region.prior, seed, region.upper)
    values = worth.of(mixtures)
    linear = scored(mixtures, values, tests, truth, "linear")
    return (*linear, *scored(mixtures, values, tests, truth, "quadratic"))


def scored(mixtures: Doubles, values: Doubles, tests: Doubles, truth: Doubles, model: str) -> tuple[float, float]:
    """Mean absolute error of log NLL, and mean Spearman correlation, over held-out sources."""
    rows, asked_of = terms(mixtures, model), terms(tests, model)
    penalty = np.diag([0.0] * mixtures.shape[1] + [RIDGE] * (rows.shape[1] - mixtures.shape[1]))
    weights = np.linalg.solve(rows.T @ rows + penalty + 1e-9 * np.eye(len(penalty)), rows.T @ values)
    predicted = asked_of @ weights
    ranks = [float(spearmanr(predicted[:, i], truth[:, i]).statistic) for i in range(truth.shape[1])]
    return float(np.abs(predicted - truth).mean()), float(np.mean(ranks))


def cell(values: Doubles) -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" if len(values) > 1 else f"{values.mean():.4f}"


if __name__ == "__main__":
    main()
