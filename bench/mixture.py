"""The mixture's cutting planes against the joint linear program by HiGHS, on random sources: python -m bench.mixture.

Prints one line per problem: both times, both optima, transports solved, and the time of 200 bootstrap replicates.
"""

import time

import numpy as np

from stages.atoms import Atoms, Doubles
from stages.mixture.optimal_transport.bootstrap import intervals
from stages.mixture.optimal_transport.program import Masses, Potentials, minimise

PROBLEMS = ((4, 64), (4, 128), (8, 64), (8, 128), (20, 64))
WIDTH = 64
ROWS = 1000.0
REPLICATES = 200


def a_problem(sources: int, atoms: int) -> tuple[dict[str, Atoms], Atoms, Doubles]:
    """Overlapping Gaussian sources; the target is a half and half of the first two."""
    rng = np.random.default_rng(sources * atoms)
    centres = 0.4 * rng.normal(size=(sources, WIDTH))
    found = {
        f"source-{i:02d}": Atoms(
            centre + 0.5 * rng.normal(size=(atoms, WIDTH)), rng.dirichlet(np.ones(atoms)), ROWS, 0.0
        )
        for i, centre in enumerate(centres)
    }
    halves = np.repeat(centres[:2], atoms // 2, axis=0) + 0.5 * rng.normal(size=(atoms // 2 * 2, WIDTH))
    target = Atoms(halves, rng.dirichlet(np.ones(len(halves))), ROWS, 0.0)
    points = np.concatenate([a.points for a in found.values()])
    costs = np.square(points[:, None] - halves).sum(axis=2)
    return found, target, costs / np.median(costs)


def joint(costs: Doubles, masses: Masses, sources: int) -> float:
    """One program over plan and shares."""
    import scipy.sparse as sparse
    from scipy.optimize import linprog

    m, b = costs.shape
    weights = sparse.csc_matrix((masses.sources, (np.arange(m), np.repeat(np.arange(sources), m // sources))))
    rows = [
        [sparse.kron(sparse.eye(m), np.ones((1, b))), -weights],
        [sparse.kron(np.ones((1, m)), sparse.eye(b)), None],
        [None, np.ones((1, sources))],
    ]
    total = np.concatenate([np.zeros(m), masses.target, [1.0]])
    objective = np.concatenate([costs.ravel(), np.zeros(sources)])
    return float(linprog(objective, A_eq=sparse.bmat(rows).tocsc(), b_eq=total, method="highs").fun)


def measure(sources: int, atoms: int) -> None:
    found, target, costs = a_problem(sources, atoms)
    masses = Masses(np.concatenate([a.weights for a in found.values()]), target.weights)
    natural = np.full(sources, 1 / sources)
    potentials = Potentials(costs, (atoms,) * sources, [], [])
    began = time.perf_counter()
    optimum = minimise(potentials, masses, np.ones(sources), natural)
    cutting = time.perf_counter() - began
    began = time.perf_counter()
    value = joint(costs, masses, sources)
    whole = time.perf_counter() - began
    solved = len(potentials.sources)
    began = time.perf_counter()
    intervals(potentials, found, target, natural, REPLICATES, seed=0)
    print(
        f"{sources:3d} sources x {atoms:3d} atoms: cutting planes {cutting:7.3f} s ({solved} transports), "
        f"joint program {whole:7.3f} s, relative difference {abs(optimum.value - value) / value:.1e}, "
        f"{REPLICATES} replicates {time.perf_counter() - began:6.1f} s"
    )


if __name__ == "__main__":
    minimise(Potentials(np.eye(2), (1, 1), [], []), Masses(np.ones(2), np.full(2, 0.5)), np.ones(2), np.full(2, 0.5))
    for problem in PROBLEMS:
        measure(*problem)
