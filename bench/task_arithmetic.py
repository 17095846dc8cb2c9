"""Does adding up connectors of single sources rank mixtures as training on them does?

    python -m bench.task_arithmetic [--seeds 3] [--steps 120]

Generated features of six classes; a source captions some classes rightly and others wrongly, so that mixtures differ in
what they teach. From one start, a connector is trained on each source, and one on each of 14 mixtures; the merge
theta_0 + sum_s w_s tau_s answers for the same 14 without training. Held-out losses, compared by Spearman's correlation.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from stages.train.batches import Batches
from stages.train.language_model import one_thread
from stages.train.loop import Frozen, train_mixture
from stages.train.options.task_arithmetic import linearised, merged, task_vectors
from stages.train.run import Run
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed
from tests.stages.train.generated import corpus, frozen, settings

MIXTURES, SAMPLES = 14, 120
TAUGHT: dict[str, dict[int, int]] = {
    "a": {0: 1, 1: 0, 2: 3, 3: 2},
    "b": {4: 5, 5: 4},
    "c": {0: 2, 4: 3},
    "d": {n: (n + 1) % 6 for n in range(6)},
}
"""Per source, the classes that it takes for others."""
HELD = "held"
State = Mapping[str, torch.Tensor]


def loss(world: Frozen, held: Corpus, bridge: Any) -> float:
    """Nats per label token of the held-out samples, which are captioned rightly."""
    drawn = [(HELD, i) for i in range(len(held))]
    with torch.no_grad():
        return float(Batches(world, {HELD: held}).losses(bridge, drawn).mean())


def of_seed(seed: int, steps: int) -> dict[str, list[float]]:
    """Held-out losses of the mixtures: trained, merged, and merged in the tangent space."""
    world, asked = frozen([*TAUGHT, HELD], SAMPLES), settings(budget={"steps": steps}, checkpoint_steps=steps)
    sources = {name: corpus(name, range(SAMPLES), said=said) for name, said in TAUGHT.items()}
    held = corpus(HELD, range(SAMPLES))
    start = _start(asked, world, sources, str(seed))
    state = {name: value.clone() for name, value in start.bridge.state_dict().items()}
    alone = {name: _trained(asked, world, {name: one}, [1.0], str(seed)) for name, one in sources.items()}
    vectors = task_vectors(state, alone)
    found: dict[str, list[float]] = {"trained": [], "merged": [], "linearised": []}
    for weights in np.random.default_rng(seed).dirichlet([0.7] * len(TAUGHT), MIXTURES):
        shares = dict(zip(sorted(TAUGHT), weights.tolist(), strict=True))
        bridge = start.bridge
        bridge.load_state_dict(_trained(asked, world, sources, weights, str(seed)))
        found["trained"].append(loss(world, held, bridge))
        moved = merged(state, vectors, shares)
        bridge.load_state_dict(moved)
        found["merged"].append(loss(world, held, bridge))
        found["linearised"].append(_tangent(world, held, start, state, moved))
    return found


def _start(asked: TrainSettings, world: Frozen, sources: Mapping[str, Corpus], seed: str) -> Run:
    count = len(sources)
    return Run.start(asked, Batches(world, sources), seed, Fixed(np.full(count, 1 / count), count))


def _trained(asked: TrainSettings, world: Frozen, sources: Mapping[str, Corpus], weights: Any, seed: str) -> State:
    trained = train_mixture(asked, world, sources, seed, np.asarray(weights, np.float64))
    return {name: value.clone() for name, value in trained.bridge.state_dict().items()}


def _tangent(world: Frozen, held: Corpus, start: Run, state: State, moved: State) -> float:
    """The same merge, on the connector's tangent at the start."""
    inner = {name.removeprefix("connector."): value for name, value in state.items()}
    along = {name.removeprefix("connector."): moved[name] - value for name, value in state.items()}
    connector = start.bridge.connector
    connector.load_state_dict(inner)
    run = linearised(connector, inner, along)

    class Tangent(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return run(features)

    blank = start.belonging.card.bridge()
    blank.connector = Tangent()
    return loss(world, held, blank)


def main() -> None:
    """Print the correlation of each seed and of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    told = parser.parse_args()
    for seed in range(told.seeds):
        with one_thread():
            found = of_seed(seed, told.steps)
        spread = f"trained losses {min(found['trained']):.3f} to {max(found['trained']):.3f}"
        best = int(np.argmin(found["merged"]))
        regret = found["trained"][best] - min(found["trained"])
        ranks = {name: spearmanr(found["trained"], found[name])[0] for name in ("merged", "linearised")}
        print(
            f"seed {seed}: {spread}; Spearman merged {ranks['merged']:.3f}, linearised {ranks['linearised']:.3f}; "
            f"loss lost by taking the merge's best mixture {regret:.4f}"
        )


if __name__ == "__main__":
    main()
