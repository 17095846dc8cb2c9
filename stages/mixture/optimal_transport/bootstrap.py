"""How sure a mixture is: the optimum again for resampled rows.

Poisson bootstrap: every row, of the sources and of the target, counts Poisson(1) times; on fixed atoms that is
Poisson(rows x weight) per atom, so a replicate costs the atoms and not the rows. With unequal row weights the number
of rows is Kish's effective one. The atoms' positions stay, so the interval does not hold the error of the k-means.
"""

from collections.abc import Mapping

import numpy as np

from stages.atoms import Atoms, Doubles
from stages.mixture.optimal_transport.box import Box
from stages.mixture.optimal_transport.objective import Objective
from stages.mixture.optimal_transport.program import Masses
from stages.noise import uniform_noise

PERCENTILES = (2.5, 97.5)


def intervals(objective: Objective, sources: Mapping[str, Atoms], target: Atoms, replicates: int, seed: int) -> Doubles:
    """(S, 2) percentile intervals of the optimum's shares without limits, sources in the mapping's order.

    Each replicate starts from what the objective knows and forgets its own, so none depends on another.
    """
    weights = [resampled(atoms, name, replicates, seed) for name, atoms in sources.items()]
    wanted = resampled(target, "target", replicates, seed)
    free = Box.free(len(sources))
    shares = [
        objective.resampled(Masses(np.concatenate([w[i] for w in weights]), wanted[i])).best(free).shares
        for i in range(replicates)
    ]
    bounds: Doubles = np.percentile(np.array(shares), PERCENTILES, axis=0).T
    return bounds


def resampled(atoms: Atoms, name: str, replicates: int, seed: int) -> Doubles:
    """(replicates, k) atom weights summing to 1; a replicate that draws no row at all keeps the weights as they are."""
    from scipy.stats import poisson

    k = len(atoms.weights)
    keys = [f"{name}/{replicate}/{atom}" for replicate in range(replicates) for atom in range(k)]
    noise = uniform_noise(keys, seed, "optimal_transport bootstrap").reshape(replicates, k)
    counts = poisson.ppf(noise, atoms.effective_rows * atoms.weights)
    totals = counts.sum(axis=1, keepdims=True)
    weights: Doubles = np.where(totals > 0, counts / np.maximum(totals, 1.0), atoms.weights)
    return weights
