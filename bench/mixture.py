"""The optimal-transport mixture at size, and its solvers against one linear program: python -m bench.mixture WHAT.

    small     cutting planes and exponentiated gradient against one linear program over plan and shares, by HiGHS
    large     64 sources x 2,000 atoms x 512-d: until the bounds meet to 1e-2 and to 1e-4, or to what is named
    rows      the solve after quantising 10^4 to 10^7 pool rows to the same number of atoms

Times are CPU seconds of this process, and wall seconds beside them: the machine may be shared.
"""

import sys
import time

import numpy as np

from schemas.errors import CuveeError
from stages.atoms import Atoms, Doubles, quantise
from stages.mixture.optimal_transport.bootstrap import intervals
from stages.mixture.optimal_transport.box import Box
from stages.mixture.optimal_transport.costs import scaled, squared
from stages.mixture.optimal_transport.exponentiated import descend
from stages.mixture.optimal_transport.objective import Program
from stages.mixture.optimal_transport.problem import Problem
from stages.mixture.optimal_transport.program import Masses, Potentials, minimise

PROBLEMS = ((4, 64), (4, 128), (8, 64), (8, 128), (20, 64))
WIDTH = 64
ROWS = 1000.0
REPLICATES = 200
LARGE = (64, 2000, 512)
CONCEPTS = 300


class Clock:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def __str__(self) -> str:
        return f"{time.process_time() - self.cpu:.2f} s CPU ({time.perf_counter() - self.wall:.2f} s wall)"


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


def small(sources: int, atoms: int) -> None:
    found, target, costs = a_problem(sources, atoms)
    masses = Masses(np.concatenate([a.weights for a in found.values()]), target.weights)
    natural, free = np.full(sources, 1 / sources), Box.free(sources)
    program = Program(Potentials(costs, (atoms,) * sources, [], []), masses, natural)
    clock = Clock()
    optimum = program.best(free)
    cutting, solved, clock = str(clock), len(program.potentials.sources), Clock()
    descent = descend(Problem(costs, (atoms,) * sources, masses.sources, masses.target, free, natural))
    gradient, clock = str(clock), Clock()
    value = joint(costs, masses, sources)
    whole, clock = str(clock), Clock()
    intervals(program, found, target, REPLICATES, seed=0)
    print(
        f"{sources:3d} sources x {atoms:3d} atoms: cutting planes {cutting}, {solved} transports, off by "
        f"{abs(optimum.value - value) / value:.1e}; exponentiated gradient {gradient}, off by "
        f"{abs(descent.value - value) / value:.1e}, certified {descent.gap / value:.1e}; joint program {whole}; "
        f"{REPLICATES} replicates {clock}"
    )


def unit(rows: Doubles) -> Doubles:
    """Rows of norm 1."""
    scaled_rows: Doubles = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled_rows


def large_points(seed: int = 0) -> tuple[list[Doubles], Doubles]:
    """Sources that share concepts in other proportions, each with its own style; the target blends three of them."""
    sources, atoms, width = LARGE
    rng = np.random.default_rng(seed)
    concepts = unit(rng.normal(size=(CONCEPTS, width)))
    parts = rng.dirichlet(np.full(CONCEPTS, 0.05), sources)
    styles = 0.25 * unit(rng.normal(size=(sources + 1, width)))

    def drawn(part: Doubles, style: Doubles) -> Doubles:
        noise = 0.7 * rng.normal(size=(atoms, width)) / np.sqrt(width)
        return unit(concepts[rng.choice(CONCEPTS, atoms, p=part)] + style + noise)

    found = [drawn(part, style) for part, style in zip(parts, styles, strict=False)]
    blend = 0.8 * rng.dirichlet(np.ones(3)) @ parts[:3] + 0.2 * rng.dirichlet(np.full(CONCEPTS, 0.05))
    return found, drawn(blend, styles[-1])


def large(*tolerances: float) -> None:
    sources, atoms, _ = LARGE
    points, target = large_points()
    rng = np.random.default_rng(1)
    weights = np.concatenate([rng.dirichlet(np.full(atoms, 5.0)) for _ in range(sources)])
    clock = Clock()
    costs, _ = scaled(squared(np.concatenate(points), target))
    print(f"costs {costs.shape} {costs.dtype}: {clock}")
    even = np.full(sources, 1 / sources)
    nu = rng.dirichlet(np.full(atoms, 5.0))
    problem = Problem(costs, (atoms,) * sources, weights, nu, Box.free(sources), even)
    for tolerance in tolerances:
        clock = Clock()
        try:
            found = descend(problem, tolerance=tolerance)
        except CuveeError as error:
            print(f"to {tolerance:g}: {error}; {clock}")
            continue
        held = int((found.shares > 1e-3).sum())
        print(
            f"to {tolerance:g}: {found.value:.6f}, certified to {found.gap / found.value:.1e}, "
            f"{held} sources with a share; {clock}"
        )


def rows(count: int, sources: int = 8, width: int = 16, atoms: int = 64) -> None:
    rng = np.random.default_rng(0)
    centres, each = 0.7 * rng.normal(size=(sources, width)), count // sources
    clock, sides = Clock(), []
    for i, centre in enumerate([*centres, centres[:2].mean(axis=0)]):
        number = each if i < sources else 2000
        drawn = (centre + rng.normal(size=(number, width))).astype(np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        sides.append(quantise(drawn, np.ones(number), [f"{i}/{j}" for j in range(number)], atoms, seed=0))
    quantised, clock = str(clock), Clock()
    *found, target = sides
    costs, _ = scaled(squared(np.concatenate([side.points for side in found]), target.points))
    masses = Masses(np.concatenate([side.weights for side in found]), target.weights)
    potentials = Potentials(costs, tuple(len(side.weights) for side in found), [], [])
    minimise(potentials, masses, Box.free(sources), np.full(sources, 1 / sources))
    print(f"{count:9d} rows: quantised in {quantised}, solved in {clock}")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "small"
    if what == "small":
        for problem in PROBLEMS:
            small(*problem)
    elif what == "large":
        large(*(map(float, sys.argv[2:]) if len(sys.argv) > 2 else (1e-2, 1e-4)))
    else:
        for size in (10**4, 10**5, 10**6, 10**7):
            rows(size)
