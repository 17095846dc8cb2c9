"""How sure the shares are: laws and optimum again for reweighted mixtures.

Bayesian bootstrap (Rubin 1981): every mixture counts Exp(1) times instead of once, in all metrics, budgets and seeds
alike, so that no replicate loses a mixture that a law cannot be fitted without. Which law a metric has is not chosen
again. The weights depend on the mixture and the seed alone.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.pilot_trials.laws import MetricFit
from stages.mixture.pilot_trials.problem import Problem
from stages.mixture.pilot_trials.runs import Runs
from stages.mixture.proposer import candidates, propose
from stages.mixture.trials_table.table import SAME, Doubles
from stages.noise import uniform_noise

PERCENTILES = (2.5, 97.5)
CANDIDATES = 5_000
"""Simulated mixtures for laws without slopes; the proposal itself is searched among more."""


def intervals(problem: Problem, fits: Mapping[str, MetricFit], replicates: int, seed: int) -> tuple[Doubles, int]:
    """(P, 2) percentile intervals of the ideal shares, and how many replicates had an answer.

    Raises:
        CuveeError: no replicate had one.
    """
    first = problem.program({name: fit.law for name, fit in fits.items()}, bounded=False)
    simulated = None if first.smooth else candidates(first.box, first.prior, seed, CANDIDATES)
    found, last = [], CuveeError("no replicates were asked for")
    for replicate in range(replicates):
        weigh = partial(_weights, replicate, seed)
        laws = {name: fit.refitted(weigh, seed) for name, fit in fits.items()}
        try:
            proposal = propose(problem.program(laws, bounded=False), seed, CANDIDATES, simulated)
        except CuveeError as error:  # ratios that are kept may leave no room below the ceilings
            last = error
            continue
        found.append(problem.narrow(proposal.shares))
    if not found:
        raise last
    ends: Doubles = np.percentile(np.array(found), PERCENTILES, axis=0).T
    return ends, len(found)


def _weights(replicate: int, seed: int, runs: Runs) -> Doubles:
    """(n,) exponential weights with mean 1, equal for runs of one mixture."""
    keys = [f"{replicate}/{_key(shares)}" for shares in runs.shares]
    drawn = -np.log(uniform_noise(keys, seed, "pilot_trials bootstrap"))
    weights: Doubles = drawn / drawn.mean()
    return weights


def _key(shares: Sequence[float] | Doubles) -> str:
    return ",".join(f"{share:.{SAME}f}" for share in shares)
