"""Paths inside a stage's nested settings are relative to the recipe, like every path in it."""

from collections.abc import Callable
from pathlib import Path

from pipeline.resolve import resolve
from tests.stages.raters.tiny_mllm import write_llava


def test_a_backend_s_model_beside_the_recipe_is_found(make_pool: Callable[..., Path]) -> None:
    recipe = make_pool()
    step = "{kind: mlm_filter, backend: {kind: transformers, model: ./mllm, device: cpu}}"
    recipe.write_text(recipe.read_text().replace("score:\n", f"score:\n  - {step}\n"))
    folder = write_llava(recipe.parent / "mllm")
    stage = resolve(recipe).stages[0]
    assert stage.backend.model == str(folder.resolve())  # type: ignore[attr-defined]
    assert str(folder) not in str(stage.identity())
