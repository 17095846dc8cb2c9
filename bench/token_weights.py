"""What CAL's token weights cost in training: from cached floats, and by a second pass in every step.

    OMP_NUM_THREADS=1 python -m bench.token_weights [--steps 30] [--rounds 5]

The demo's language model and generated features, 16 visual tokens and captions of the demo; CPU time of training steps,
the three kinds alternating in one process. The once-per-corpus pass is priced in plain steps beside it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import torch

import pipeline.demo
from pipeline.demo.captions import PHRASINGS, caption
from pipeline.demo.scenes import draw_scene, randomness
from stages.train.batches import Batches
from stages.train.language_model import load_language_model, one_thread
from stages.train.loop import Frozen
from stages.train.run import Run
from stages.train.samples import Draft, Pair, corpus
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed
from stages.train.text_logits import text_logits
from stages.train.vision_features import VisualTokens

SAMPLES, VISUAL, WIDTH = 400, 16, 128
MODEL = Path(pipeline.demo.__file__).parent / "models" / "language_model"


def world() -> Batches:
    """Samples with random features and the demo's captions."""
    language = load_language_model(MODEL)
    draft, features = Draft(), np.random.default_rng(0).normal(size=(SAMPLES, VISUAL, WIDTH)).astype(np.float16)
    for i in range(SAMPLES):
        noise = randomness(0, "token weights", i)
        draft.add(
            Pair(f"{i:04d}", b"", caption(draw_scene(noise), sorted(PHRASINGS)[i % len(PHRASINGS)], noise)), str(i)
        )
    frozen = Frozen(language, VisualTokens([features], {str(i): (0, i) for i in range(SAMPLES)}))
    return Batches(frozen, {"demo": corpus(draft, language.tokenize, {}, 32)})


def run_of(batches: Batches, cal: bool) -> Run:
    """A run of many steps."""
    given = {
        "vision_model": "generated", "vision_pretrained": "none", "language_model": str(MODEL),
        "budget": {"steps": 10**6}, "batch": 32, "token_weights": "cal" if cal else None,
    }  # fmt: skip
    settings = TrainSettings.model_validate(given)
    return Run.start(settings, batches, "0", Fixed(np.ones(1), 1))


def two_passes(run: Run, batches: Batches) -> Callable[[], None]:
    """A step of CAL as published: the captions of the batch pass once more without their images."""
    language, samples = batches.frozen.language, batches.corpora["demo"]

    def step() -> None:
        state = run.sampler.state
        drawn = run.sampler.ids(np.ones(1))
        said = [language.said(samples.caption(i), bool(samples.whole[i]), 0) for _, i in drawn]
        text_logits(language, said, VISUAL)
        run.sampler.state = state
        run._step()

    return step


def main() -> None:
    """Print medians of CPU time per step and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    torch.set_num_threads(1)
    with one_thread():
        batches = world()
        plain, began = run_of(batches, cal=False), process_time()
        cached = run_of(batches, cal=True)
        once = process_time() - began
        kinds = {"plain": plain._step, "cached": cached._step, "two passes": two_passes(run_of(batches, True), batches)}
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(told.rounds):
            for name, step in kinds.items():
                began = process_time()
                for _ in range(told.steps):
                    step()
                seconds[name].append((process_time() - began) / told.steps)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {1e3 * median:.2f} ms a step, {median / medians['plain']:.3f} x plain")
    print(f"once per corpus of {SAMPLES}: {once:.2f} s, {once / medians['plain'] / (SAMPLES / 32):.2f} plain epochs")


if __name__ == "__main__":
    main()
