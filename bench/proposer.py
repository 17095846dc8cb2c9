"""Mixture programs beside cvxpy, which states Olmix's: what is found, how exactly limits are kept, CPU seconds.

    python -m venv PEER && PEER/bin/pip install cvxpy ecos
    OMP_NUM_THREADS=1 python -m bench.proposer --peer PEER/bin/python

Programs: 13 log-linear metrics over 8, 17 or 64 sources, with repetition caps and with or without KL to a prior. Runs
alternate, medians are compared. The optimum is known to our certificate, so both sides are held against its bound.
"""

import argparse
import json
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.mixture.proposer import Box, Metric, program, propose
from stages.mixture.proposer.box import Doubles

METRICS, SIZES, STRENGTHS, SOLVERS = 13, (8, 17, 64), (0.0, 0.05), ("ECOS", "CLARABEL")


@dataclass(frozen=True)
class LogLinear:
    """exp(level + slopes p)."""

    level: float
    slopes: Doubles
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        found: Doubles = np.exp(self.level + mixtures @ self.slopes)
        return found

    def gradient(self, mixtures: Doubles) -> Doubles:
        found: Doubles = self.predict(mixtures)[:, None] * self.slopes
        return found


def job_of(size: int, strength: float, seed: int) -> dict[str, Any]:
    """Numbers of one program."""
    rng = np.random.default_rng([size, seed])
    prior = rng.dirichlet(np.ones(size))
    return {
        "slopes": rng.normal(0, 1.5, (METRICS, size)).tolist(),
        "levels": rng.normal(0, 0.3, METRICS).tolist(),
        "prior": prior.tolist(),
        "upper": np.minimum(1.0, 4 * prior).tolist(),
        "strength": strength,
    }


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """The same job by the proposer."""
    began = time.process_time()
    made = _program(job)
    found = propose(made)
    return {"seconds": time.process_time() - began, "shares": found.shares, "gap": found.gap, "value": found.value}


def _program(job: dict[str, Any]) -> Any:
    laws = [LogLinear(level, np.array(slopes)) for level, slopes in zip(job["levels"], job["slopes"], strict=True)]
    metrics = [Metric(f"m{i}", law, 1 / METRICS) for i, law in enumerate(laws)]
    upper = np.array(job["upper"])
    return program(metrics, Box(np.zeros(len(upper)), upper), np.array(job["prior"]), job["strength"])


class Peer:
    """cvxpy in its own environment, started once."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).with_name("proposer_peer.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def solve(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(peer: Peer, size: int, strength: float, programs: int) -> None:
    """Print a line per side."""
    lines: dict[str, list[tuple[float, float, float]]] = {"ours": [], **{name: [] for name in SOLVERS}}
    failed = dict.fromkeys(SOLVERS, 0)
    for seed in range(programs):
        job = job_of(size, strength, seed)
        made, found = _program(job), ours(job)
        bound = found["value"] - found["gap"]
        lines["ours"].append((found["seconds"], found["gap"], _outside(made.box, found["shares"])))
        for solver in SOLVERS:
            answer = peer.solve({**job, "solver": solver})
            if "failed" in answer:
                failed[solver] += 1
                continue
            shares = np.array(answer["shares"])
            value = float(made.value(np.maximum(shares, 0)[None])[0])
            lines[solver].append((answer["seconds"], value - bound, _outside(made.box, shares)))
    for name, rows in lines.items():
        seconds, above, outside = zip(*rows, strict=True) if rows else ((np.nan,), (np.nan,), (np.nan,))
        print(
            f"{size:3d} sources  lambda {strength:4.2f}  {name:9s} {1000 * statistics.median(seconds):7.1f} ms  "
            f"above the bound at most {max(above):8.1e}  outside limits {max(outside):8.1e}  "
            f"failed {failed.get(name, 0)}"
        )


def _outside(box: Box, shares: Doubles) -> float:
    """How far shares break bounds or their sum."""
    return float(max((box.lower - shares).max(), (shares - box.upper).max(), abs(shares.sum() - 1), 0.0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="python with cvxpy")
    parser.add_argument("--programs", type=int, default=11)
    asked = parser.parse_args()
    solver = Peer(asked.peer)
    for number in SIZES:
        for weight in STRENGTHS:
            compare(solver, number, weight, asked.programs)
    solver.close()
