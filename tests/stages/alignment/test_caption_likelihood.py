"""Losses of captions: what becomes of a model's numbers that are none."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.worker import check_batch
from stages.alignment.caption_likelihood import CaptionLikelihood
from stages.captioners.likelihood import TokenScores
from stages.captioners.multimodal_captioner import LoadedMultimodalCaptioner
from tests.pools import picture
from tests.stages.raters.tiny_mllm import made


@pytest.mark.parametrize("number", [np.nan, -np.inf, np.inf])
def test_numbers_beyond_the_format_are_no_scores(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.array([-1.0, -2.0])
    broken = TokenScores(sound, np.array([-1.0, number]), sound, sound)
    said = [broken, TokenScores(sound, sound, sound, sound)]
    monkeypatch.setattr(LoadedMultimodalCaptioner, "scores", lambda *_: said)
    stage = CaptionLikelihood.model_validate(
        {"captioner": {"kind": "transformers", "model": str(made("llava")), "device": "cpu"}}
    )
    columns = [pa.array([picture(1), picture(2)], stage.reads[0].type), pa.array(["a", "b"], stage.reads[1].type)]
    found = check_batch(stage, stage.open()(pa.record_batch(columns, pa.schema(stage.reads))), 2, "shard")
    assert found["caption_likelihood_reason"].to_pylist() == ["model_overflow", None]
    assert found["caption_nll_image"].to_pylist() == [None, 1.5]
