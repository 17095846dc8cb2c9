"""What a training step costs by how its samples stand: CPU time of forward and backward pass, alternating in one run.

A frozen Llama of 8 layers (width 256, random weights; what a step costs does not depend on them), a trained MLP,
captions of 10 to 60 tokens. Ratios are over one caption a row, whose losses the others repeat.

python bench/layouts.py [--rounds 7]
"""

import argparse
from collections.abc import Mapping
from time import process_time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.train.batches import Batches
from stages.train.bridge import Bridge
from stages.train.hearing import Manner
from stages.train.language_model import LanguageModel, one_thread
from stages.train.loop import Frozen
from stages.train.samples import Corpus
from stages.train.vision_features import VisualTokens

WIDTH, LAYERS, FEATURES = 256, 8, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with one_thread():
        short, long = world(images=32, captions=1, visual=32), world(images=2, captions=4, visual=576)
        report(
            "32 images, 32 visual tokens",
            short,
            rounds,
            {"packed to 512": Manner(pack=512), "packed to 128": Manner(pack=128)},
        )
        report("2 images, 4 captions each, 576 visual tokens", long, rounds, {"shared": Manner(share=True)})
        layers = {f"images enter at layer {layer}": layer for layer in (1, 2, 3)}
        report("2 images, 4 captions each, 576 visual tokens", long, rounds, layers)


def world(*, images: int, captions: int, visual: int) -> Batches:
    """Captions of images in the order of the images."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=WIDTH, intermediate_size=688, num_hidden_layers=LAYERS, num_attention_heads=4,
        bos_token_id=0, eos_token_id=1, max_position_embeddings=1024,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train(False).requires_grad_(False)
    drawn, count = np.random.default_rng(0), images * captions
    lengths = drawn.gamma(4.0, 7.0, count).clip(10, 60).astype(int)
    corpus = Corpus(
        keys=tuple(f"k{i}" for i in range(count)),
        images=tuple(f"i{i // captions}" for i in range(count)),
        tokens=drawn.integers(2, 4096, lengths.sum()).astype(np.int32),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        whole=np.ones(count, np.bool_),
        unusable={},
    )
    tokens = drawn.normal(size=(images, visual, FEATURES)).astype(np.float16)
    frozen = Frozen(
        LanguageModel(model, None, 0, 1, "cpu"), VisualTokens([tokens], {f"i{i}": (0, i) for i in range(images)})
    )
    return Batches(frozen, {"": corpus})


def bridge(layer: int) -> Bridge:
    """The connector."""
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(FEATURES, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH))
    return Bridge(mlp, layer=layer)


def report(name: str, batches: Batches, rounds: int, ways: Mapping[str, Manner | int]) -> None:
    """Print a line per way."""
    plain, losses = "one caption a row", dict[str, float]()
    seconds: dict[str, list[float]] = {way: [] for way in (plain, *ways)}
    drawn = [("", i) for i in range(len(batches.corpora[""]))]
    for turn in range(rounds + 1):
        for way in seconds:
            how = ways.get(way, 0)
            bridged = bridge(how if isinstance(how, int) else 0)
            standing = Batches(batches.frozen, batches.corpora, manner=how if isinstance(how, Manner) else Manner())
            began = process_time()
            loss = standing.losses(bridged, drawn).mean()
            torch.autograd.backward(loss)
            losses[way] = float(loss.detach())
            seconds[way] += [process_time() - began] if turn else []  # the first turn tries the model
    print(f"\n{name}: {len(drawn)} captions\n")
    for way, taken in seconds.items():
        ratio = np.median(np.array(seconds[plain]) / np.array(taken))
        print(f"| {way} | {np.median(taken):.3f} s | {ratio:.2f} x | loss {losses[way]:.6f} |")


if __name__ == "__main__":
    main()
