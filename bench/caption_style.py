"""Is a source's style worth taking out of the caption loss? Logit correction of captions against beta = 0.

    python -m bench.caption_style [--seeds 3] [--first 0] [--steps 300]

Two sources, ten concepts; each source shows five of them nineteen times as often as the others, looks different and
says its captions in words of its own around the concept's word. The language model is trained on all captions first, so
that it knows both styles, and then frozen. Held out is a set in which every group (concept, source) is as large as any
other. Losses in nats a token, each group counting the same: of whole captions, and of the concept's word alone.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from bench.cases.planted_sources import CONCEPTS, SOURCES, WIDTH, Planted, planted
from stages.train.batches import Batches
from stages.train.language_model import LanguageModel, one_thread
from stages.train.loop import Frozen, train_mixture
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

Doubles = npt.NDArray[np.float64]
BEGIN, END, FIRST = 0, 1, 2
STYLE, PER_STYLE = FIRST + CONCEPTS, 4
"""First token of source 0's words; words of a source."""
VOCABULARY = STYLE + SOURCES * PER_STYLE
TRAINED, HELD = 1000, 400
BETAS = (0.0, 0.25, 0.5, 1.0)


def captions(drawn: Planted, seed: int) -> list[list[int]]:
    """Two words of the source's style, the concept's word, one more word of the style."""
    random = np.random.default_rng([seed, 7])
    words = STYLE + drawn.sources[:, None] * PER_STYLE + random.integers(0, PER_STYLE, (len(drawn.sources), 3))
    return [[a, b, FIRST + int(c), d] for (a, b, d), c in zip(words.tolist(), drawn.concepts.tolist(), strict=True)]


def language(said: Sequence[list[int]], seed: int) -> LanguageModel:
    """A small causal model that has learned how captions read, without images."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=16, bos_token_id=BEGIN, eos_token_id=END,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = torch.tensor([[BEGIN, *ids, END] for ids in said])
    for step in range(200):
        some = rows[torch.randint(0, len(rows), (64,), generator=torch.Generator().manual_seed(step))]
        optimizer.zero_grad()
        torch.autograd.backward(model(some, labels=some).loss)
        optimizer.step()
    return LanguageModel(model.train(False).requires_grad_(False), None, BEGIN, END, "cpu")


def corpora(drawn: Planted, said: Sequence[list[int]], name: str) -> dict[str, Corpus]:
    """The samples by source; image I is called NAME/I."""
    whole = Corpus(
        keys=tuple(f"{i:05d}" for i in range(len(said))),
        images=tuple(f"{name}/{i}" for i in range(len(said))),
        tokens=np.array(said, np.int32).ravel(),
        offsets=np.arange(0, 4 * len(said) + 1, 4, dtype=np.int64),
        whole=np.ones(len(said), np.bool_),
        unusable={},
    )
    return whole.parts([f"source {n}" for n in drawn.sources.tolist()])


def group_losses(batches: Batches, bridge: object) -> tuple[float, float]:
    """Group-balanced losses of whole captions and of concept words; groups are (concept, source)."""
    groups: dict[tuple[str, int], list[Doubles]] = {}
    for name in batches.names:
        drawn = [(name, i) for i in range(len(batches.corpora[name]))]
        with torch.no_grad():
            values = batches.losses(bridge, drawn).values.view(len(drawn), 5).double().numpy()  # type: ignore[arg-type]
        for (_, i), row in zip(drawn, values, strict=True):
            groups.setdefault((name, batches.corpora[name].caption(i)[2]), []).append(row)
    means = [np.mean(rows, axis=0) for rows in groups.values()]
    assert len(means) == CONCEPTS * SOURCES
    return float(np.mean(means)), float(np.mean([mean[2] for mean in means]))


def of_seed(seed: int, steps: int) -> list[tuple[float, float]]:
    """Per beta, both losses."""
    train, held = planted(TRAINED, 0.95, seed, 0), planted(HELD, 0.5, seed, 1)
    told, asked = captions(train, seed), captions(held, seed + 1000)
    features = np.concatenate([train.features, held.features]).astype(np.float16)[:, None]
    places = {f"train/{i}": (0, i) for i in range(TRAINED)} | {f"held/{i}": (0, TRAINED + i) for i in range(HELD)}
    world = Frozen(language(told, seed), VisualTokens([features], places))
    sources, test = corpora(train, told, "train"), Batches(world, corpora(held, asked, "held"))
    natural, found = Batches(world, sources).natural, []
    for beta in BETAS:
        settings = made(steps, beta)
        found.append(group_losses(test, train_mixture(settings, world, sources, str(seed), natural).bridge))
    return found


def made(steps: int, beta: float) -> TrainSettings:
    """A run's settings."""
    given = {
        "vision_model": "generated", "vision_pretrained": "none", "language_model": "generated", "hidden": WIDTH,
        "budget": {"steps": steps}, "batch": 32, "learning_rate": 3e-3, "checkpoint_steps": steps,
        "logit_correction": {"form": "caption", "beta": beta} if beta else None,
    }  # fmt: skip
    found = TrainSettings.model_validate(given)
    found.__dict__["language_identity"] = "generated"  # a cached property: there are no files to digest
    return found


def main() -> None:
    """Print the losses, and the paired differences to beta = 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=300)
    told = parser.parse_args()
    with one_thread():
        losses = np.array([of_seed(seed, told.steps) for seed in range(told.first, told.first + told.seeds)])
    for place, beta in enumerate(BETAS):
        apart = losses[:, place] - losses[:, 0]
        line = [
            f"{name} {losses[:, place, which].mean():.4f} (difference {apart[:, which].mean():+.4f}, from "
            f"{apart[:, which].min():+.4f} to {apart[:, which].max():+.4f})"
            for which, name in enumerate(("caption", "concept word"))
        ]
        print(f"beta {beta}: {'; '.join(line)}")


if __name__ == "__main__":
    main()
