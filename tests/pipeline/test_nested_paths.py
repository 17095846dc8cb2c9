"""Paths in settings, nested ones too, are relative to the recipe, from wherever the command is given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.places import rooted
from pipeline.resolve import resolve
from stages.kinds import kinds
from stages.stage import Stage
from stages.train.settings import TrainSettings
from tests.stages.raters.tiny_mllm import write_llama, write_llava


def test_a_backend_s_model_beside_the_recipe_is_found(make_pool: Callable[..., Path]) -> None:
    recipe = make_pool()
    step = "{kind: mlm_filter, backend: {kind: transformers, model: ./mllm, device: cpu}}"
    recipe.write_text(recipe.read_text().replace("score:\n", f"score:\n  - {step}\n"))
    folder = write_llava(recipe.parent / "mllm")
    stage = resolve(recipe).stages[0]
    assert stage.backend.model == str(folder.resolve())  # type: ignore[attr-defined]
    assert str(folder) not in str(stage.identity())


@pytest.mark.parametrize(
    ("kind", "given", "names"),
    [
        ("linear_head", {"weights": "parts/head.safetensors"}, ["weights"]),
        ("concepts", {"learned": "words.safetensors", "model": "enc"}, ["learned", "model"]),
        ("clip", {"model": "ViT-L-14", "pretrained": "weights.pt"}, ["pretrained"]),
        ("tmars", {"model": "enc", "pretrained": "openai"}, ["model"]),
        ("rater", {"rubric": "mine.yaml", "backend": {"kind": "transformers", "model": "enc"}}, ["rubric", "model"]),
        ("rater", {"rubric": "dataman", "backend": {"kind": "vllm", "model": "enc"}}, ["model"]),
        ("mlm_filter", {"backend": {"kind": "openai", "model": "enc"}}, []),
        ("caption_likelihood", {"captioner": {"kind": "transformers", "model": "enc"}}, ["model"]),
        (
            "caption_likelihood",
            {
                "captioner": {
                    "kind": "connector",
                    "connector": "parts",
                    "vision_model": "enc",
                    "language_model": "org/x",
                }
            },
            ["connector", "vision_model"],
        ),
        ("loss_difference", {"reference": "enc", "teacher": "org/x", "column": "parts"}, ["reference"]),
    ],
)
def test_what_lies_beside_the_recipe_is_a_path_and_all_else_a_name(
    kind: str, given: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "parts").mkdir()
    for file in ("parts/head.safetensors", "words.safetensors", "weights.pt", "mine.yaml"):
        (tmp_path / file).touch()
    found = rooted(kinds(Stage)[kind], given, tmp_path)
    text = json.dumps(given)
    for name in names:
        inner = next(part for part in (given, *given.values()) if isinstance(part, dict) and name in part)
        text = text.replace(f'"{name}": "{inner[name]}"', f'"{name}": "{tmp_path / inner[name]}"')
    assert found == json.loads(text)
    assert rooted(kinds(Stage)[kind], given, tmp_path / "parts" / "elsewhere") == given


def test_the_trainer_s_models_as_well(tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    assert rooted(TrainSettings, {"language_model": "lm"}, tmp_path) == {"language_model": str(tmp_path / "lm")}
    assert rooted(TrainSettings, {"language_model": "gpt2", "batch": 4}, tmp_path) == {
        "language_model": "gpt2",
        "batch": 4,
    }


def test_a_run_from_another_folder_scores_with_files_beside_the_recipe(
    make_pool: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_cluster: object
) -> None:
    """Workers have yet another folder; a rubric and two models are read there."""
    from pipeline.cluster import Cluster
    from pipeline.run import run

    recipe = make_pool(rows=2)
    steps = "  - {kind: loss_difference, reference: words, teacher: others}\n"
    recipe.write_text(recipe.read_text().replace("score:\n", f"score:\n{steps}"))
    write_llama(recipe.parent / "words")
    write_llama(recipe.parent / "others", seed=1)
    monkeypatch.chdir(tmp_path)
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(Path("project/recipe.yaml")), cluster, until="score")
    scores = outcome.chosen.table.scores("pool", ["loss_difference"]).collect()["loss_difference"]
    assert len(scores) == 8 and scores.null_count() == 0
