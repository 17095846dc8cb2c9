"""Four questions about one image and caption: encoded once, against four separate calls.

    python -m bench.raters --rounds 3 --samples 4

The models have random weights; what is asked has the shape of MLM-Filter on LLaVA-1.5, 576 image tokens. Both sides are
the same rater with the same image decoding and the same answers' trie; only the sharing differs.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stages.raters.backend import RaterSample
from stages.raters.multimodal_model import ALL_AT_ONCE, Way
from stages.raters.rubric import load_rubric
from stages.raters.transformers_rater import TransformersBackend, TransformersRater
from tests.stages.raters.tiny_mllm import write_idefics3, write_llava, write_qwen2_vl

MODELS: dict[str, Callable[[Path], Path]] = {
    "LLaVA, 576 image tokens, digit by digit": lambda f: write_llava(f, side=192, width=256, layers=6),
    "LLaVA, 576 image tokens, a number is a token": lambda f: write_llava(
        f, side=192, width=256, layers=6, whole_numbers=True
    ),
    "Qwen2-VL, 16 image tokens, 32 wide": write_qwen2_vl,
    "Idefics3, 4 image tokens, 32 wide": write_idefics3,
}


def samples(count: int) -> list[RaterSample]:
    noise = np.random.Generator(np.random.Philox(7))
    found = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (224, 224, 3), dtype=np.uint8)).save(buffer, "JPEG")
        found.append(RaterSample(buffer.getvalue(), f"a red circle above a green square, number {number}"))
    return found


def seconds(rater: TransformersRater, asked: list[RaterSample], once: bool) -> tuple[float, list[float]]:
    rater.way = Way(shared=once)
    questions = load_rubric("mlm_filter").questions
    began = time.process_time()
    rows = rater.rate(asked, questions)
    took = time.process_time() - began
    return took, [float(answer.value) for row in rows for answer in row if answer.value is not None]


def compare(name: str, write: Callable[[Path], Path], asked: list[RaterSample], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = TransformersBackend.model_validate(
            {"model": str(write(Path(folder))), "device": "cpu", "least_mass": 0.0}
        )
        rater = backend.open()
    assert rater.way == ALL_AT_ONCE, "this model's prompts cannot share their beginning"
    times: dict[bool, list[float]] = {True: [], False: []}
    found: dict[bool, list[float]] = {}
    for _ in range(rounds + 1):
        for once in (True, False):
            took, found[once] = seconds(rater, asked, once)
            times[once].append(took)
    apart = max(abs(one - other) for one, other in zip(found[True], found[False], strict=True))
    shared, four = (statistics.median(times[kind][1:]) / len(asked) * 1000 for kind in (True, False))
    print(f"| {name} | {four:.1f} ms | {shared:.1f} ms | {four / shared:.2f} x | {apart:.1e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    print("| model | four calls, CPU per sample | once | ratio | largest difference of a score |")
    print("| --- | --- | --- | --- | --- |")
    for name, write in MODELS.items():
        compare(name, write, samples(options.samples), options.rounds)


if __name__ == "__main__":
    main()
