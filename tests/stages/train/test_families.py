"""A connector in front of any causal language model of transformers, from its folder to the trained weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.train.batches import Batches
from stages.train.language_model import language_of
from stages.train.loop import Frozen, train
from stages.train.metrics.evaluation import Evaluation, evaluate
from stages.train.samples import Corpus
from stages.train.vision_features import VisualTokens
from tests.stages.train.generated import settings
from tests.stages.train.language_models import SPLIT, causal

CLASSES, VISUAL, FEATURES = 4, 3, 8


def world() -> tuple[VisualTokens, Corpus]:
    """Images of 4 classes, each captioned by its class's two tokens."""
    drawn = np.random.default_rng(0)
    directions = drawn.normal(size=(CLASSES, FEATURES))
    tokens = [directions[i % CLASSES] + 0.1 * drawn.normal(size=(VISUAL, FEATURES)) for i in range(24)]
    corpus = Corpus(
        keys=tuple(f"k{i:02d}" for i in range(24)),
        images=tuple(f"i{i}" for i in range(24)),
        tokens=np.array([[20 + i % CLASSES, 40 + i % CLASSES] for i in range(24)], np.int32).ravel(),
        offsets=np.arange(0, 50, 2, dtype=np.int64),
        whole=np.ones(24, np.bool_),
        unusable={},
    )
    return VisualTokens([np.array(tokens, np.float16)], {f"i{i}": (0, i) for i in range(24)}), corpus


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "gpt2", "opt", "bloom"])
def test_a_connector_learns_and_the_model_stays_as_it_was(family: str, language_folder: Path, tmp_path: Path) -> None:
    causal(family).save_pretrained(tmp_path)
    for file in language_folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    layer = 1 if family in SPLIT else 0
    made = settings(
        language_model=str(tmp_path), budget={"steps": 25}, batch=12, hidden=64, learning_rate=1e-2, inject_layer=layer,
        **({} if family == "bloom" else {"pack": {"length": 64}, "share_prefix": True}),
    )  # fmt: skip
    visual, corpus = world()
    frozen = Frozen(language_of(made, "cpu"), visual)
    before = {name: value.clone() for name, value in frozen.language.model.state_dict().items()}
    trained = train(made, frozen, corpus, "7/0")
    losses = [loss for _, loss in trained.curve]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    after = frozen.language.model.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())
    found = evaluate(trained.bridge, frozen, Evaluation.over(corpus, 4, 0), 8)
    values = Batches(frozen, {"": corpus}).losses(trained.bridge, [("", i) for i in range(24)]).values
    assert found["nll_per_token"] == pytest.approx(float(values.detach().mean()), rel=1e-5)
    assert found["visual_use_low"] > 0
