"""Descends along slopes inside the bounds and below the ceilings: sequential quadratic programming (scipy's SLSQP)."""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.mixture.proposer.box import Doubles
from stages.mixture.proposer.program import Program

OPTIONS = {"maxiter": 1000, "ftol": 1e-14}


def descend(program: Program, starts: Sequence[Doubles]) -> Iterator[Doubles]:
    """(k,) from each start: where no slope inside the bounds leads further down, as far as the solver gets."""
    return (_descended(program, start) for start in starts)


def lowest_excess(program: Program, starts: Sequence[Doubles]) -> Doubles:
    """(k,) where the largest excess over the ceilings is as low as descent from the starts makes it."""
    found = [_least(program, start) for start in starts]
    return min(found, key=lambda point: float(program.excess(point[None]).max()))


def _descended(program: Program, start: Doubles) -> Doubles:
    from scipy.optimize import minimize

    ceilings = {
        "type": "ineq",
        "fun": lambda q: -program.excess(_inside(program, q)[None])[0],
        "jac": lambda q: -program.excess_slopes(_inside(program, q)),
    }
    found = minimize(
        lambda q: float(program.value(_inside(program, q)[None])[0]),
        start,
        jac=lambda q: program.slope(_inside(program, q)),
        method="SLSQP",
        bounds=list(zip(program.box.lower, program.box.upper, strict=True)),
        constraints=[_whole(len(start)), *([ceilings] if program.ceilings else [])],
        options=OPTIONS,
    )
    return _settled(program, start, found.x)


def _settled(program: Program, start: Doubles, found: Doubles) -> Doubles:
    """The solver's point put exactly inside the bounds; the start where it went astray."""
    return program.box.nearest(found) if np.isfinite(found).all() else start


def _least(program: Program, start: Doubles) -> Doubles:
    from scipy.optimize import minimize

    k = len(start)
    below = {
        "type": "ineq",
        "fun": lambda x: x[-1] - program.excess(_inside(program, x[:-1])[None])[0],
        "jac": lambda x: np.column_stack(
            [-program.excess_slopes(_inside(program, x[:-1])), np.ones(len(program.ceilings))]
        ),
    }
    found = minimize(
        lambda x: float(x[-1]),
        np.append(start, program.excess(start[None]).max()),
        jac=lambda x: np.append(np.zeros(k), 1.0),
        method="SLSQP",
        bounds=[*zip(program.box.lower, program.box.upper, strict=True), (None, None)],
        constraints=[_whole(k, 1), below],
        options=OPTIONS,
    )
    return _settled(program, start, found.x[:-1])


def _whole(shares: int, others: int = 0) -> dict[str, object]:
    ones = np.append(np.ones(shares), np.zeros(others))
    return {"type": "eq", "fun": lambda x: ones @ x - 1, "jac": lambda x: ones}


def _inside(program: Program, point: Doubles) -> Doubles:
    """The solver's iterates leave the bounds by rounding, where laws may not be defined."""
    return np.clip(point, program.box.lower, program.box.upper)
