"""Compiling takes a C++ compiler and some seconds, so it is tested once."""

import shutil

import pytest

from stages.train.decoder_layers import decoder_layers
from stages.train.loop import train
from tests.stages.train import generated


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_loses_what_a_plain_one_does_and_leaves_the_model_as_it_was() -> None:
    frozen, corpus = generated.frozen(("web",), 24), generated.corpus("web", range(24))
    plain = train(generated.settings(), frozen, corpus, "0")
    compiled = train(generated.settings(compile=True), frozen, corpus, "0")
    assert [loss for _, loss in compiled.curve] == pytest.approx([loss for _, loss in plain.curve], rel=1e-4)
    assert compiled.speed["graphs"] == 1 and "graphs" not in plain.speed
    assert all(layer._compiled_call_impl is None for layer in decoder_layers(frozen.language.model))
    assert train(generated.settings(), frozen, corpus, "0").curve == plain.curve
