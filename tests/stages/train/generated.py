"""A world of classes in generated features: a real causal model, tiny and random, and sources whose truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stages.train.language_model import LanguageModel
from stages.train.loop import Frozen
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

CLASSES, WIDTH, VISUAL = 6, 8, 2
EOS, FIRST = 1, 2
"""Token of a caption's end; token of class 0."""


def language(layers: int = 1) -> LanguageModel:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=FIRST + CLASSES, hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16, initializer_range=0.4,
        bos_token_id=0, eos_token_id=EOS,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
    model.train(False).requires_grad_(False)
    return LanguageModel(model, None, 0, EOS, "cpu")


def frozen(names: Sequence[str], samples: int, noise: float = 0.5) -> Frozen:
    """Images `NAME/I` of class I mod CLASSES: a direction per class, plus noise."""
    drawn = np.random.default_rng(0)
    directions = np.random.default_rng(1).normal(size=(CLASSES, WIDTH))
    tokens = [
        directions[i % CLASSES] + noise * drawn.normal(size=(VISUAL, WIDTH)) for _ in names for i in range(samples)
    ]
    places = {f"{name}/{i}": (0, n * samples + i) for n, name in enumerate(names) for i in range(samples)}
    return Frozen(language(), VisualTokens([np.array(tokens, np.float16)], places))


def corpus(name: str, samples: Sequence[int], said: Mapping[int, int] | None = None, wrong: float = 0.0) -> Corpus:
    """Samples of a source, each captioned by its class's token.

    Args:
        name: of the source.
        samples: numbers of its images.
        said: class to the class that captions name instead.
        wrong: share of the captions that name a class at random.
    """
    chance = np.random.default_rng(len(name) + sum(name.encode()))
    classes = [(said or {}).get(i % CLASSES, i % CLASSES) for i in samples]
    named = [int(chance.integers(CLASSES)) if chance.random() < wrong else c for c in classes]
    count = len(samples)
    return Corpus(
        keys=tuple(f"{name}/{i:04d}" for i in samples),
        images=tuple(f"{name}/{i}" for i in samples),
        tokens=np.array([FIRST + c for c in named], np.int32),
        offsets=np.arange(count + 1, dtype=np.int64),
        whole=np.ones(count, np.bool_),
        unusable={},
    )


def settings(**changed: object) -> TrainSettings:
    given = {
        "vision_model": "generated", "vision_pretrained": "none", "language_model": "generated", "hidden": 16,
        "budget": {"steps": 20}, "batch": 12, "learning_rate": 1e-2, "checkpoint_steps": 4,
    }  # fmt: skip
    made = TrainSettings.model_validate({**given, **changed})
    made.__dict__["language_identity"] = "generated"  # a cached property: there are no files to digest
    return made


def located(samples: Corpus, shard: str) -> Corpus:
    """The same, read from a shard."""
    return replace(samples, shards=(shard,) * len(samples))
