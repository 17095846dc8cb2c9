"""Zero-shot concepts against open_clip's own arithmetic, and every setting that cannot work refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import RecipeError
from stages.alignment.concepts.learned import convert_prompts, read_prompts
from stages.alignment.concepts.stage import Concepts

PROMPTS = {"dog": ["a photo of a dog", "two dogs running"], "shoe": "a photo of a shoe", "neither": "a blue bottle"}

HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 900000000000), }".ljust(117) + b"\n"


@pytest.fixture(scope="module")
def width(model_folder: Path) -> int:
    return Concepts(model=str(model_folder), concepts=("a", "b")).widths()["image_embedding"]


def embeddings(rows: int, width: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(8)).normal(size=(rows, width))
    return (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16)


def batch(rows: list[Any]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(rows, IMAGE_EMBEDDING.type)], pa.schema([IMAGE_EMBEDDING]))


def test_scores_are_those_of_open_clips_zero_shot_head(model_folder: Path, width: int) -> None:
    import open_clip
    import torch

    network, _, _ = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    network.eval()
    rows = embeddings(20, width)
    with torch.inference_mode():
        means = []
        for prompts in PROMPTS.values():
            found = network.encode_text(tokenize([prompts] if isinstance(prompts, str) else prompts), normalize=True)
            means.append(torch.nn.functional.normalize(found.mean(dim=0), dim=0))
        cosines = torch.nn.functional.normalize(torch.from_numpy(rows).float()) @ torch.stack(means).T
        shares = (network.logit_scale.exp() * cosines).softmax(dim=1).numpy()
    softmax, cosine = (
        Concepts(model=str(model_folder), concepts=PROMPTS, score=score) for score in ("softmax", "cosine")
    )
    names = ["concept", "concept_dog", "concept_shoe", "concept_neither", "concepts_reason"]
    for stage, expected, tolerance in ((softmax, shares, 1e-3), (cosine, cosines.numpy(), 1e-5)):
        scores = stage.open()(batch(list(rows)))
        assert scores.schema.names == names
        found = np.stack([scores[name].to_numpy() for name in names[1:4]], axis=1)
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert scores["concept"].to_pylist() == [list(PROMPTS)[place] for place in expected.argmax(axis=1)]


def test_learned_prompts_stand_beside_words_or_alone(model_folder: Path, width: int, tmp_path: Path) -> None:
    rows = embeddings(4, width).astype(np.float32)
    save_file({"violent": rows[0], "calm": rows[1:3]}, tmp_path / "learned.safetensors")
    learned = str(tmp_path / "learned.safetensors")
    alone = Concepts(model=str(model_folder), learned=learned, score="cosine", column="safety")
    assert alone.name == "concepts_safety" and alone.names == ("calm", "violent")
    found = alone.open()(batch(list(rows.astype(np.float16))))
    assert found["safety_violent"][0].as_py() == pytest.approx(1, abs=1e-5)
    mean = rows[1:3].sum(axis=0) / np.linalg.norm(rows[1:3].sum(axis=0))
    np.testing.assert_allclose(found["safety_calm"].to_numpy(), rows @ mean, atol=1e-3)
    beside = Concepts(model=str(model_folder), concepts=("a_dog",), learned=learned)
    assert beside.names == ("a_dog", "calm", "violent") and beside.prompts() == {"a_dog": ("a photo of a dog",)}
    assert beside.open()(batch(list(rows.astype(np.float16))))["concept"].null_count == 0
    before = beside.identity()
    save_file({"violent": rows[3], "calm": rows[1:3]}, tmp_path / "learned.safetensors")
    assert beside.identity() != before


def test_a_row_without_an_embedding_has_a_reason(model_folder: Path, width: int) -> None:
    scorer = Concepts(model=str(model_folder), concepts=("dog", "cat")).open()
    scores = scorer(batch([None, embeddings(1, width)[0]]))
    assert scores["concept"].is_valid().to_pylist() == [False, True]
    assert scores["concepts_reason"].to_pylist() == ["missing_embedding", None]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"concepts": ("dog",)}, "at least 2"),
        ({}, "at least 2"),
        ({"concepts": ("dog", "dog")}, "'dog' is named twice"),
        ({"concepts": ("a dog", "cat")}, "lower-case"),
        ({"concepts": {"dog": " ", "cat": "a cat"}}, "empty prompt"),
        ({"concepts": {"dog": [], "cat": "a cat"}}, "empty prompt"),
        ({"concepts": ("dog", "cat"), "template": "a photo"}, "expected {} once"),
        ({"concepts": ("score", "cat"), "column": "clip"}, "choose another name"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Concepts(model="local-dir:nowhere", **settings)


def test_learned_prompts_that_cannot_be_are_refused(tmp_path: Path, model_folder: Path) -> None:
    file = tmp_path / "learned.safetensors"
    with pytest.raises(RecipeError, match="are not there"):
        Concepts(model="m", learned=str(file))
    for tensors, words in (
        ({"a": np.ones(4), "b": np.ones(5)}, r"widths \[4, 5\]"),
        ({"a": np.ones(4, np.int64)}, "int64"),
        ({"a": np.zeros(4)}, "zeros alone"),
        ({"a": np.full(4, np.nan)}, "NaN"),
        ({"a": np.ones((2, 2, 2))}, r"\(2, 2, 2\)"),
    ):
        save_file(tensors, file)
        with pytest.raises(RecipeError, match=words):
            read_prompts(file)
    file.write_bytes(b"junk")
    with pytest.raises(RecipeError, match="no safetensors"):
        read_prompts(file)
    save_file({"a": np.ones(3), "b": np.ones(3)}, file)
    with pytest.raises(RecipeError, match="the learned prompts and the model have"):
        Concepts(model=str(model_folder), learned=str(file)).check()


def test_prompts_that_numpy_saved_are_converted(tmp_path: Path) -> None:
    rows = embeddings(2, 6).astype(np.float32)
    np.save(tmp_path / "prompts.npy", rows)
    convert_prompts(tmp_path / "prompts.npy", tmp_path / "learned.safetensors", ["calm", "violent"])
    np.testing.assert_array_equal(read_prompts(tmp_path / "learned.safetensors")["violent"], rows[1:])
    with pytest.raises(RecipeError, match="expected 3 rows"):
        convert_prompts(tmp_path / "prompts.npy", tmp_path / "learned.safetensors", ["a", "b", "c"])
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(RecipeError, match="without unpickling"):
        convert_prompts(tmp_path / "objects.npy", tmp_path / "learned.safetensors", ["a"])


@pytest.mark.parametrize(
    "file",
    [b"", b"PK\x03\x04....", b"\x93NUMPY\x01\x00\x10\x00{'descr': .......", b"\x93NUMPY\x01\x00v\x00" + HUGE],
    ids=["empty", "zip", "header", "huge"],
)
def test_damaged_numpy_files_are_refused(file: bytes, tmp_path: Path) -> None:
    (tmp_path / "prompts.npy").write_bytes(file)
    with pytest.raises(RecipeError, match="without unpickling"):
        convert_prompts(tmp_path / "prompts.npy", tmp_path / "learned.safetensors", ["a", "b"])


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 8), ("F8_E4M3", 4), ("F4", 2)])
def test_numbers_that_numpy_has_not_are_refused(dtype: str, size: int, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}}).encode()
    (tmp_path / "learned.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(RecipeError, match="no safetensors that numpy knows"):
        read_prompts(tmp_path / "learned.safetensors")


def test_a_recipe_takes_the_model_from_its_clip_step(make_pool: Callable[..., Path], model_folder: Path) -> None:
    from pipeline.resolve import resolve

    recipe = make_pool(shards=1, rows=2)
    before = recipe.read_text()

    def write(*steps: str) -> None:
        recipe.write_text(before.replace("score:\n", "score:\n" + "".join(f"  - {step}\n" for step in steps)))

    clip = f'{{kind: clip, model: "{model_folder}", device: cpu}}'
    write(clip, "{kind: concepts, concepts: [dog, cat]}", "{kind: concepts, column: kind_of_data, concepts: [a, b]}")
    stages = resolve(recipe).stages
    assert [stage.name for stage in stages[:3]] == ["clip", "concepts", "concepts_kind_of_data"]
    assert stages[1].model_dump()["model"] == str(model_folder)
    write(clip, "{kind: concepts, concepts: [dog, cat], model: ViT-B-32, pretrained: openai}")
    with pytest.raises(RecipeError, match=r"`model` is 'ViT-B-32', but the step whose columns it reads has"):
        resolve(recipe)
    write("{kind: concepts, concepts: [dog, cat]}")
    with pytest.raises(RecipeError, match=r"score\[0\] reads 'image_embedding', which nothing writes"):
        resolve(recipe)
