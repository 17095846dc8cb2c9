"""Losses of two models, their difference, and what a rule keeps of it."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from schemas.errors import RecipeError
from stages.quality.loss_difference import LossDifference, difference
from stages.rule import Context
from stages.thresholds import TopFraction
from tests.stages.raters.tiny_mllm import made

CAPTIONS = [
    "a red circle above a green square",
    "on the table",
    "Answer 7 or 75",
    "How well do they belong?",
    "x",
    "a red",
]


def scored(captions: list[str], **settings: object) -> list[dict[str, float]]:
    given = {"reference": str(made("words")), "teacher": str(made("other_words")), **settings}
    stage = LossDifference.model_validate(given)
    stage.check()
    rows: list[dict[str, float]] = stage.open()(pa.record_batch({"caption": pa.array(captions)})).to_pylist()
    return rows


def test_miniplm_and_lobass_by_hand() -> None:
    reference, teacher = np.array([4.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])
    assert difference(reference, teacher, normalise=False).tolist() == [3.0, -0.5, 0.0]
    assert difference(reference, teacher, normalise=True).tolist() == [0.75, -0.25, 0.0]


def test_losses_are_those_of_a_plain_forward_pass() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for role, name in (("reference", "words"), ("teacher", "other_words")):
        model, words = (auto.from_pretrained(made(name)) for auto in (AutoModelForCausalLM, AutoTokenizer))
        for caption, row in zip(CAPTIONS, scored(CAPTIONS), strict=True):
            ids = torch.tensor([[words.bos_token_id, *words(caption, add_special_tokens=False)["input_ids"]]])
            with torch.inference_mode():
                expected = float(model(ids, labels=ids).loss)
            assert row[f"loss_{role}"] == pytest.approx(expected, abs=1e-5)


def test_the_difference_is_one_subtraction_of_what_is_stored() -> None:
    for row, share in zip(scored(CAPTIONS), scored(CAPTIONS, normalise=True), strict=True):
        assert row["loss_difference"] == row["loss_reference"] - row["loss_teacher"]
        assert share["loss_difference"] == row["loss_difference"] / row["loss_reference"]


@pytest.mark.parametrize("fraction", [0.5, 0.34])
def test_the_kept_set_is_the_argsort_of_the_stored_losses(fraction: float) -> None:
    rows = scored(CAPTIONS)
    stored = np.array([row["loss_reference"] - row["loss_teacher"] for row in rows])
    best = np.argsort(-stored, kind="stable")[: int(np.ceil(fraction * len(rows)))]
    table = pl.DataFrame(
        {"uid": [str(n) for n in range(len(rows))], "source": "a", "d": [r["loss_difference"] for r in rows]}
    )
    dropped = TopFraction(column="d", fraction=fraction).judge(table.lazy(), Context(0)).dropped["uid"].to_list()
    assert {int(uid) for uid in dropped} == set(range(len(rows))) - set(best.tolist())


def test_a_model_whose_numbers_are_none_gives_a_reason(tmp_path: Path) -> None:
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(made("other_words"), tmp_path / "diverged")
    model, words = (auto.from_pretrained(tmp_path / "diverged") for auto in (AutoModelForCausalLM, AutoTokenizer))
    with torch.no_grad():
        model.get_input_embeddings().weight[words(CAPTIONS[0], add_special_tokens=False)["input_ids"][0]] = torch.nan
    model.save_pretrained(tmp_path / "diverged")
    row = scored(CAPTIONS[:1], teacher=str(tmp_path / "diverged"))[0]
    assert row["loss_difference_reason"] == "model_overflow"
    assert row["loss_reference"] is row["loss_teacher"] is row["loss_difference"] is None


def test_two_tokenizers_are_compared_by_the_byte_only() -> None:
    other = {"teacher": str(made("words_whole_numbers"))}
    with pytest.raises(RecipeError, match="per: byte"):
        scored(CAPTIONS, **other)
    per_byte = scored(CAPTIONS, per="byte", **other)
    token = scored(CAPTIONS)
    assert per_byte[4]["loss_reference"] == pytest.approx(token[4]["loss_reference"])  # "x" is a token and a byte
    long = scored(["word " * 500], per="byte", **other)[0]
    assert long["loss_difference_reason"] == "caption_too_long" and long["loss_reference"] is None


def test_a_caption_as_long_as_the_limit_is_read_whole() -> None:
    """`a red` has two tokens in both models."""
    two, three = scored(["a red", "a red circle"], per="byte", max_tokens=2)
    assert two["loss_difference_reason"] is None
    assert two["loss_reference"] == pytest.approx(scored(["a red"], per="byte")[0]["loss_reference"])
    assert three["loss_difference_reason"] == "caption_too_long"


def test_several_pairs_of_models_have_columns_of_their_own() -> None:
    stage = LossDifference(reference="a", teacher="b", column="after")
    assert stage.name == "loss_difference_after"
    assert [field.name for field in stage.writes] == ["after_reference", "after_teacher", "after_difference"]
