"""The support set against brute force; names alone find photographs in tests/real."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.rule import Context, Verdict
from stages.target.sus_x import SusX


def pool(values: np.ndarray, names: list[str]) -> pl.DataFrame:
    columns = {f"concept_{name}": values[:, place].astype(np.float32) for place, name in enumerate(names)}
    return pl.DataFrame({"uid": [f"{row:05d}" for row in range(len(values))], "source": "s", **columns})


def kept(rows: pl.DataFrame, verdict: Verdict) -> set[int]:
    return {int(uid) for uid in set(rows["uid"]) - set(verdict.dropped["uid"])}


def test_the_highest_cosines_of_every_class_equally_many() -> None:
    noise = np.random.default_rng(0)
    names = ["dog", "cat", "bird"]
    values = noise.uniform(0, 0.1, (600, 3))
    values[np.arange(600), noise.choice(3, 600, p=[0.9, 0.07, 0.03])] += 0.3  # a pool of dogs
    rows = pool(values, names)
    verdict = SusX(classes=tuple(names), samples=30).judge(rows.lazy(), Context(0))
    wide = rows.select(pl.col("^concept_.*$")).to_numpy()
    expected = {int(row) for place in range(3) for row in np.argsort(-wide[:, place])[:10]}
    assert len(expected) == 30 and kept(rows, verdict) == expected
    found = verdict.evidence["classes"]
    assert {name: line["rows"] for name, line in found.items()} == dict.fromkeys(names, 10)
    assert found["cat"]["lowest"] == pytest.approx(np.sort(wide[:, 1])[-10])
    assert verdict.evidence["rows_of_several_classes"] == 0


def test_an_image_of_two_classes_counts_once_and_its_place_goes_to_the_next() -> None:
    values = np.array([[0.9, 0.9], [0.8, 0.1], [0.1, 0.8], [0.7, 0.0], [0.0, 0.7]])
    rows = pool(values, ["dog", "pet"])
    verdict = SusX(classes=("dog", "pet"), samples=3).judge(rows.lazy(), Context(0))
    assert kept(rows, verdict) == {0, 1, 2} and verdict.evidence["rows_of_several_classes"] == 1
    assert verdict.evidence["classes"]["dog"]["rows"] == 2


def test_the_column_is_that_of_the_concepts_step_and_nulls_are_named() -> None:
    rows = pool(np.array([[0.9, 0.8], [0.2, 0.1]]), ["dog", "cat"]).rename(
        {"concept_dog": "animal_dog", "concept_cat": "animal_cat"}
    )
    rows = rows.with_columns(pl.when(pl.col("uid") == "00000").then(None).otherwise("animal_cat").alias("animal_cat"))
    rule = SusX(column="animal", classes=("dog", "cat"), samples=1)
    assert rule.columns() == ("animal_dog", "animal_cat")
    verdict = rule.judge(rows.lazy(), Context(0))
    assert verdict.dropped.select("uid", "reason").rows() == [("00000", "animal_cat_missing")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"classes": ()}, "at least 1"), ({"classes": ("dog", "dog")}, "'dog' is named twice"), ({}, "Field required")],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SusX(samples=1, **settings)


def test_a_column_of_words_is_refused() -> None:
    rows = pool(np.zeros((2, 1)), ["dog"]).with_columns(pl.lit("x").alias("concept_dog"))
    with pytest.raises(RecipeError, match="holds String"):
        SusX(classes=("dog",), samples=1).judge(rows.lazy(), Context(0))
