"""Selectors on real images: the tenth that looks like the target, the photographs that class names alone find."""

from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from bench.judgements import embedded, frame, samples
from schemas.columns import IMAGE_EMBEDDING
from stages.alignment.clip.stage import Clip
from stages.alignment.concepts.stage import Concepts
from stages.fitted_stage import Examples
from stages.rule import Context
from stages.target.best import Best
from stages.target.deft import Deft
from stages.target.got_d import GotD
from stages.target.normsim import NormSim
from stages.target.random import Random
from stages.target.sus_x import SusX
from stages.target.tsds import Tsds
from stages.vectors import cosines, vectors
from tests.stages.vectors import batch

CLASSES = {"dog": ("dog",), "child": ("child", "boy", "girl", "kid"), "shoe": ("shoe", "shoes"), "shirt": ("shirt",)}
"""Class -> words of captions that say so."""


@pytest.fixture(scope="module")
def model(shared: Path) -> str:
    """The real dual encoder."""
    folder = shared / "models" / "tiny-dual-encoder"
    if not folder.is_dir():
        pytest.skip("the real dual encoder ../shared/models/tiny-dual-encoder is not here")
    return str(folder)


@pytest.fixture(scope="module")
def pool(shared: Path, model: str) -> pl.DataFrame:
    """150 photographs and 360 fashion products with their captions."""
    found = []
    for source, number, first in (("photos", 150, 0), ("fashion", 360, 10_000)):
        pairs = list(islice(samples(shared / "data/pool" / source), number))
        rows = frame(*embedded(Clip(model=model, device="cpu"), pairs), source, first)
        found.append(rows.with_columns(pl.Series("caption", [caption for _, caption in pairs])))
    return pl.concat(found).sort("uid")


def kept(rows: pl.DataFrame, rule: Best | Deft | Random | SusX) -> pl.DataFrame:
    return rows.join(rule.judge(rows.lazy(), Context(0)).dropped, on="uid", how="anti")


def test_normsim_finds_the_tenth_that_looks_like_the_target(shared: Path, model: str, pool: pl.DataFrame) -> None:
    """With a target of only 100 images the largest of its dot products tells less than all of them together."""
    pairs = list(islice(samples(shared / "data/target/photos"), 100))
    target = frame(*embedded(Clip(model=model, device="cpu"), pairs), "target", 90_000).sort("uid")
    photos = pool.filter(pl.col("source") == "photos").head(40)
    mixed = pl.concat([photos, pool.filter(pl.col("source") == "fashion")]).sort("uid")
    stage = NormSim()
    scorer = stage.open_with(stage.learn(Examples({"target": target}, 0, {})), "")
    scores = scorer(batch(mixed, stage.reads))
    for column, least in (("normsim_2", 0.95), ("normsim_inf", 0.8)):
        rows = mixed.select("uid", "source").hstack([pl.Series(column, scores[column].to_pylist())])
        precision = (kept(rows, Best(column=column, fraction=0.1))["source"] == "photos").mean()
        print(f"{column}: precision {precision} at 10 %, by chance 0.1")
        assert isinstance(precision, float) and precision >= least


@pytest.mark.parametrize(
    ("rule", "least"),
    [(GotD(fraction=0.1), 0.95), (Tsds(fraction=0.1, neighbours=10), 0.85)],  # tsds draws, and 400 rows are few
    ids=["got_d", "tsds"],
)
def test_transport_finds_the_tenth_that_looks_like_the_target(
    rule: GotD | Tsds, least: float, shared: Path, model: str, pool: pl.DataFrame
) -> None:
    pairs = list(islice(samples(shared / "data/target/photos"), 100))
    target = frame(*embedded(Clip(model=model, device="cpu"), pairs), "target", 90_000).sort("uid")
    photos = pool.filter(pl.col("source") == "photos").head(40)
    mixed = pl.concat([photos, pool.filter(pl.col("source") == "fashion")]).sort("uid")
    verdict = rule.judge(mixed.lazy(), Context(0, target=target.lazy()))
    left = mixed.join(verdict.dropped, on="uid", how="anti")
    precision = (left["source"] == "photos").mean()
    print(f"{rule.kind}: precision {precision} at 10 %, by chance 0.1")
    assert len(left) == 40 and isinstance(precision, float) and precision >= least


def test_names_alone_find_their_photographs(model: str, pool: pl.DataFrame) -> None:
    step = Concepts(model=model, concepts=tuple(CLASSES), score="cosine")
    vectors_ = pool[IMAGE_EMBEDDING.name].to_arrow().cast(IMAGE_EMBEDDING.type)
    embeddings = pa.record_batch([vectors_], pa.schema([IMAGE_EMBEDDING]))
    columns = step.open()(embeddings)
    rows = pool.select("uid", "source", "caption").hstack(
        [pl.Series(f"concept_{name}", columns[f"concept_{name}"].to_pylist()) for name in CLASSES]
    )
    for name, words in CLASSES.items():
        told = pl.col("caption").str.to_lowercase().str.contains(rf"\b({'|'.join(words)})s?\b")
        found = kept(rows, SusX(classes=(name,), samples=12)).select(told)["caption"].mean()
        before = rows.select(told)["caption"].mean()
        print(f"{name}: captions say so for {found} of the support set, {before} of the pool")
        assert isinstance(found, float) and isinstance(before, float) and found >= 0.5 and found > 2 * before
    balanced = SusX(classes=tuple(CLASSES), samples=48).judge(rows.lazy(), Context(0)).evidence["classes"]
    assert min(line["rows"] for line in balanced.values()) >= 12


def test_a_core_set_covers_the_pool_better_than_a_draw(pool: pl.DataFrame) -> None:
    every = vectors(pool[IMAGE_EMBEDDING.name].to_arrow())
    radius = {}
    for rule in (Deft(samples=50, clusters=10, easy=0.2, base=0.2), Random(samples=50)):
        chosen = vectors(kept(pool, rule)[IMAGE_EMBEDDING.name].to_arrow())
        radius[rule.kind] = 1 - float(cosines(every, chosen).max(axis=1).min())
    print(f"largest distance to a kept image: {radius}")
    assert radius["deft"] < radius["random"]
