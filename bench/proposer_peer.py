"""Solves mixture programs with cvxpy, as Olmix states them; started by bench/proposer.py, never by hand.

It runs in an environment of its own: cvxpy, ecos. Reads one JSON program per line, answers with one JSON line.
"""

import json
import sys
import time
from typing import Any

import cvxpy as cp  # type: ignore[import-not-found, unused-ignore]
import numpy as np


def solve(job: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds, from the numbers to the shares, and the shares."""
    began = time.process_time()
    slopes, levels = np.array(job["slopes"]), np.array(job["levels"])
    shares = cp.Variable(slopes.shape[1])
    goal = cp.sum(cp.exp(levels + slopes @ shares)) / len(slopes)
    if job["strength"]:
        goal += job["strength"] * cp.sum(cp.rel_entr(shares, np.array(job["prior"])))
    limits = [shares >= 0, shares <= np.array(job["upper"]), cp.sum(shares) == 1]
    problem = cp.Problem(cp.Minimize(goal), limits)
    try:
        problem.solve(solver=job["solver"])
    except cp.error.SolverError as error:
        return {"seconds": time.process_time() - began, "failed": str(error)}
    seconds = time.process_time() - began
    if shares.value is None:
        return {"seconds": seconds, "failed": problem.status}
    return {"seconds": seconds, "shares": shares.value.tolist(), "status": problem.status}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(solve(json.loads(line))), flush=True)
