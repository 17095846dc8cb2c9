"""The MoE testbed on planted domains: what balancing scopes and routers make of a mixture of experts.

Every scope of the learned router, and the reference, random and dense routers, from the same starts on the same images,
at equal active parameters; `bench/cases/planted_domains.py` says what is planted. Prints a table of medians over seeds
with their range, and the share of the gap from dense to reference that is closed.

python bench/experts.py [--seeds 5] [--steps 300] [--top-k 1] [--route token]
"""

import argparse
from collections.abc import Sequence
from statistics import median
from time import process_time
from typing import Any

import torch

from bench.cases.planted_domains import BY_SOURCE, DOMAINS, World, measured, trained
from stages.train.metrics.expert_specialisation import gap_closed

ROWS: dict[str, dict[str, Any]] = {
    "learned, global_batch": {"scope": "global_batch"},
    "learned, micro_batch": {"scope": "micro_batch"},
    "learned, sequence": {"scope": "sequence"},
    "learned, none": {"scope": "none"},
    "reference": BY_SOURCE,
    "random": {"router": "random"},
    "dense": {"router": "dense"},
}
SHOWN = ("nmi", "agreement_above_chance", "utilisation", "overload", "dead_experts", "swap_cost", "loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--top-k", type=int, default=1, choices=(1, 2))
    parser.add_argument("--route", default="token", choices=("token", "image"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    start, found = process_time(), {}
    for name, settings in ROWS.items():
        shape = {"experts": DOMAINS * asked.top_k, "top_k": asked.top_k, "route": asked.route}
        runs = [_run(seed, asked.steps, {**shape, **settings}) for seed in range(asked.seeds)]
        found[name] = runs
        print(f"| {name} | " + " | ".join(_cell([run.get(column) for run in runs]) for column in SHOWN), flush=True)
    print("columns:", ", ".join(SHOWN))
    for name in (name for name in ROWS if name.startswith(("learned", "random"))):
        both = zip(found["dense"], found[name], found["reference"], strict=True)
        print(f"gap closed, {name}: {_cell([gap_closed(d['loss'], m['loss'], r['loss']).share for d, m, r in both])}")
    print(f"{process_time() - start:.0f} s of CPU, torch {torch.__version__}")


def _run(seed: int, steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    world = World.drawn(seed)
    return measured(trained(world, seed, steps, **settings), world, seed)


def _cell(values: Sequence[float | None]) -> str:
    told = sorted(value for value in values if value is not None)
    return f"{median(told):.2f} ({told[0]:.2f}-{told[-1]:.2f})" if told else "-"


if __name__ == "__main__":
    main()
