"""The connector that a training left on disk, as a captioner: its losses are those of training and evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import RecipeError
from stages.alignment.caption_likelihood import CaptionLikelihood
from stages.captioners.connector_captioner import ARM, ConnectorCaptioner
from stages.train.bridge import Bridge
from stages.train.connector import ConnectorCard, save_connector
from stages.train.model_files import folder_identity
from tests.stages.train.conftest import caption, draw, language_folder, vision_folder
from tests.stages.train.own_forward import log_probabilities

__all__ = ["language_folder", "vision_folder"]


@pytest.fixture
def trained(tmp_path: Path, language_folder: Path, vision_folder: Path) -> Path:
    """A connector between the tiny models, where a run's training would leave it."""
    folder = tmp_path / "work" / "fits" / "train-0123" / "connectors" / ARM
    card = ConnectorCard(
        vision_width=24, hidden=32, language_width=32, visual_tokens=16, init_seed=5,
        vision=folder_identity(vision_folder), language_model=folder_identity(language_folder),
    )  # fmt: skip
    save_connector(Bridge(card.build()), card, folder)
    return folder


@pytest.fixture
def settings(trained: Path, language_folder: Path, vision_folder: Path) -> Callable[..., ConnectorCaptioner]:
    def make(**changed: Any) -> ConnectorCaptioner:
        given = {"connector": str(trained), "vision_model": str(vision_folder), "language_model": str(language_folder)}
        return ConnectorCaptioner.model_validate({**given, "max_tokens": 40, **changed})

    return make


def test_losses_are_those_that_training_sees(settings: Callable[..., ConnectorCaptioner]) -> None:
    import torch

    captioner = settings().open()
    numbers = range(11)
    found = captioner.scores([draw(n) for n in numbers], [caption(n) for n in numbers])
    tokens = [captioner.language.tokenize([caption(n)])[0] for n in numbers]
    from stages.pixels import decode, flat_rgb

    with torch.inference_mode():
        features = captioner.tower.tokens([flat_rgb(decode(draw(n))) for n in numbers])
        visual = captioner.bridge.connector(torch.from_numpy(features).float())
        spoken = [log_probabilities(captioner.language, visual[n], tokens[n]) for n in numbers]
        expected = [part.gather(1, torch.tensor(ids)[:, None])[:, 0] for part, ids in zip(spoken, tokens, strict=True)]
    for row, scores in enumerate(found):
        assert not isinstance(scores, str)
        assert scores.log_p_image == pytest.approx(expected[row].numpy(), abs=1e-5)


def test_text_alone_is_the_language_model_without_any_connector(
    settings: Callable[..., ConnectorCaptioner], language_folder: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    scores = settings().open().scores([draw(1)], [caption(1)])[0]
    assert not isinstance(scores, str)
    model = AutoModelForCausalLM.from_pretrained(language_folder)
    words = settings().open().language.tokenizer
    ids = torch.tensor([[words.bos_token_id, *words(caption(1), add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        loss = float(model(ids, labels=ids).loss)
    assert -scores.log_p_text.mean() == pytest.approx(loss, abs=1e-5)


def test_a_language_model_without_a_begin_token_starts_from_its_end(
    settings: Callable[..., ConnectorCaptioner],
) -> None:
    from dataclasses import replace

    captioner = settings().open()
    captioner.language = replace(captioner.language, bos=None, templates=())
    scores = captioner.scores([draw(1)], [caption(1)])[0]
    assert not isinstance(scores, str) and len(scores.log_p_text) == len(scores.log_p_image)


def test_a_run_names_its_connector(settings: Callable[..., ConnectorCaptioner], trained: Path) -> None:
    work = trained.parents[3]
    (work / "runs" / "r1").mkdir(parents=True)
    (work / "runs" / "r1" / "run.json").write_text(json.dumps({"training": {"arms": 3}}))
    (trained.parents[1] / "result.json").write_text(json.dumps({"arms": 3}))
    by_run = settings(connector=str(work / "runs" / "r1"))
    assert by_run.folder == trained and by_run.identity() == settings().identity()
    assert settings(connector=str(trained.parents[1])).folder == trained
    (work / "runs" / "r1" / "run.json").write_text(json.dumps({"training": {"arms": 4}}))
    with pytest.raises(RecipeError, match="neither the folder of a connector"):
        settings(connector=str(work / "runs" / "r1")).check()


def test_other_models_than_its_own_are_refused(settings: Callable[..., ConnectorCaptioner], trained: Path) -> None:
    settings().check()
    card = json.loads((trained / "connector.json").read_text())
    (trained / "connector.json").write_text(json.dumps(card | {"language_model": "another"}))
    with pytest.raises(RecipeError, match="language_model = 'another'"):
        settings().check()


def test_the_stage_s_columns_agree_with_each_other(settings: Callable[..., ConnectorCaptioner]) -> None:
    stage = CaptionLikelihood(captioner=settings())
    images = [draw(n) for n in range(5)] + [b"", None]
    captions = [caption(n) for n in range(4)] + [None, "a", "a"]
    batch = pa.record_batch([pa.array(images, pa.large_binary()), pa.array(captions)], pa.schema(stage.reads))
    rows = stage.open()(batch).to_pylist()
    assert [row["caption_likelihood_reason"] for row in rows] == [
        *[None] * 4, "missing_caption", "empty_image", "missing_image",
    ]  # fmt: skip
    for row in rows[:4]:
        assert row["visual_dependence"] == pytest.approx(row["caption_nll_text"] - row["caption_nll_image"], abs=1e-5)
        assert row["caption_pmi"] == pytest.approx(row["visual_dependence"] * row["caption_tokens"], abs=1e-4)
