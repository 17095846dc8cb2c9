"""Gap, alignment and uniformity against their definitions, pair by pair."""

import math

import numpy as np
import polars as pl
import pytest

from stages.alignment.embedding_geometry import EmbeddingGeometry, alignment, modality_gap, uniformity
from stages.rule import Context
from tests.stages.vectors import near, pairs, unit


def test_the_statistics_are_their_definitions() -> None:
    images, texts = unit(700, 12, 1), near(unit(700, 12, 1), 0.9, 2)
    f, g = (
        rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None] for rows in (images, texts)
    )
    assert modality_gap(images, texts) == pytest.approx(np.linalg.norm(f.mean(axis=0) - g.mean(axis=0)), rel=1e-12)
    assert alignment(images, texts) == pytest.approx(np.square(f - g).sum(axis=1).mean(), rel=1e-12)
    distances = np.square(f[:, None] - f).sum(axis=2)[np.triu_indices(700, 1)]
    assert uniformity(images) == pytest.approx(math.log(np.exp(-2 * distances).mean()), rel=1e-12)


def test_extremes() -> None:
    one = np.repeat(unit(1, 6, 1), 4, axis=0)
    assert modality_gap(one, one) == 0 and modality_gap(one, -one) == pytest.approx(2)
    assert alignment(one, one) == pytest.approx(0, abs=1e-12) and alignment(one, -one) == pytest.approx(4)
    assert uniformity(one) == pytest.approx(0, abs=1e-12) and uniformity(one[:1]) is None
    assert uniformity(np.concatenate([one[:1], -one[:1]])) == pytest.approx(-8)


def test_the_rule_drops_nothing_and_tells_each_source() -> None:
    a, b = pairs(unit(30, 8, 1), unit(30, 8, 2), source="a"), pairs(unit(1, 8, 3), unit(1, 8, 4), source="b", first=50)
    empty = b.with_columns(
        pl.lit("f" * 32).alias("uid"), pl.lit(None, b.schema["text_embedding"]).alias("text_embedding")
    )
    verdict = EmbeddingGeometry().judge(pl.concat([a, b, empty]).lazy(), Context(seed=0))
    assert verdict.dropped.is_empty() and verdict.weights is None and verdict.fit is None
    assert verdict.evidence["samples"] == {"a": 30, "b": 1}
    assert verdict.evidence["image_uniformity"]["a"] < -1 and verdict.evidence["image_uniformity"]["b"] is None
    shuffled = EmbeddingGeometry().judge(pl.concat([b, a]).sort("uid", descending=True).lazy(), Context(seed=0))
    assert shuffled.evidence == verdict.evidence
    assert EmbeddingGeometry().judge(empty.lazy(), Context(seed=0)).evidence == {}
