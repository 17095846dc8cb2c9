"""Measures what training steps cost on this machine: the reference table of budgets in `reference_seconds`.

    python bench/rst_table.py pipeline/demo/models/language_model --visual 16 --text 8 16 --batch 8 16 --steps 200

Each row is the mean over that many steps of the connector's real training (an MLP before the frozen language model),
with random features and captions of full length: time does not depend on what they say. On a CPU it is CPU time of one
thread, sizes alternating step by step, so that other processes cost every row alike. A table in which more work takes
less time is refused when it is read; measure again with more steps then.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from stages.train.accumulation import Accumulation
from stages.train.batches import Batches
from stages.train.language_model import LanguageModel, load_language_model, one_thread
from stages.train.loop import Frozen
from stages.train.optimizers.choice import optimizer_of
from stages.train.reference_time import read_table, shape_name
from stages.train.run import connector_card
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

SAMPLES, WIDTH, WARM = 64, 64, 3


class Bench:
    """One size of batch."""

    def __init__(self, language: LanguageModel, folder: str, visual: int, text: int, batch: int) -> None:
        noise = np.random.default_rng(0)
        tokens = noise.normal(size=(SAMPLES, visual, WIDTH)).astype(np.float16)
        names = tuple(f"{i:03d}" for i in range(SAMPLES))
        ids = noise.integers(3, language.model.config.vocab_size, SAMPLES * text)
        offsets, whole = np.arange(SAMPLES + 1, dtype=np.int64) * text, np.ones(SAMPLES, np.bool_)
        corpus = Corpus(names, names, ids.astype(np.int32), offsets, whole, {})
        frozen = Frozen(language, VisualTokens([tokens], {name: (0, i) for i, name in enumerate(names)}))
        given = {"vision_model": "random", "vision_pretrained": "none", "language_model": folder}
        settings = TrainSettings.model_validate({**given, "budget": {"steps": 1}, "batch": batch})
        self.seq, self.batch, self.sources = visual + text + 1, batch, Batches(frozen, {"": corpus})
        self.bridge = connector_card(settings, frozen, "0").bridge().to(language.device)
        self.optimizer = optimizer_of(settings, self.bridge.parameters())
        self.drawn = [("", int(i)) for i in noise.integers(SAMPLES, size=batch)]

    def forward(self) -> None:
        with torch.no_grad():
            self.sources.losses(self.bridge, self.drawn)

    def train(self) -> None:
        Accumulation().gradient(self.sources, self.bridge, self.drawn)
        self.optimizer.step()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("language_model")
    asked.add_argument("--visual", type=int, default=16)
    asked.add_argument("--text", type=int, nargs="+", default=[8, 16], help="`max_tokens`")
    asked.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    asked.add_argument("--steps", type=int, default=200)
    asked.add_argument("--out", type=Path, default=Path(__file__).with_name("rst_table.json"))
    options = asked.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    language = load_language_model(Path(options.language_model), device)
    sizes = [(text, batch) for text in options.text for batch in options.batch]
    benches = [Bench(language, options.language_model, options.visual, *size) for size in sizes]
    spent = {(n, kind): 0.0 for n in range(len(benches)) for kind in ("forward", "train")}
    clock = perf_counter if device == "cuda" else process_time
    with one_thread():
        for step in range(-WARM, options.steps):
            for n, kind in spent:
                began = clock()
                getattr(benches[n], kind)()
                if device == "cuda":
                    torch.cuda.synchronize()
                spent[n, kind] += (clock() - began) * (step >= 0)
    config = language.model.config.get_text_config()
    rows = [
        {"model": shape_name(config), "layers": config.num_hidden_layers, "seq": benches[n].seq,
         "batch": benches[n].batch, "kind": kind, "seconds": float(f"{seconds / options.steps:.6g}")}
        for (n, kind), seconds in spent.items()
    ]  # fmt: skip
    machine = torch.cuda.get_device_name() if device == "cuda" else f"one thread of {_processor()}, fp32"
    options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    read_table(options.out)
    for row in rows:
        print(f"{row['seq']:5d} places x {row['batch']:3d} rows  {row['kind']:8s} {1000 * row['seconds']:8.2f} ms")


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
