"""Duplicates of real photographs: turned and mirrored copies, evaluation photographs planted in the pool."""

import io
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from bench.cases.photos import jpeg_bytes, photos
from bench.duplicates import WAYS, hashes
from bench.judgements import samples
from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import run
from stages.hamming import close_turned_pairs
from tests.pools import write_tar

PLANTED = 25


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Image.Image]:
    found = photos([str(shared / "data/pool/photos/00000.tar")])[:60]
    return [Image.open(io.BytesIO(each)).convert("RGB") for each in found]


@pytest.mark.parametrize("way", WAYS)
def test_a_photograph_turned_and_encoded_again_is_found(pictures: list[Image.Image], way: str) -> None:
    copies = [Image.open(io.BytesIO(jpeg_bytes(each.transpose(WAYS[way]), 85))) for each in pictures]
    pairs = close_turned_pairs(np.concatenate([hashes(pictures), hashes(copies)]), 4)
    right = (pairs.second - pairs.first) == len(pictures)
    assert right.sum() >= 0.95 * len(pictures) and right.all()
    upright = close_turned_pairs(np.concatenate([hashes(pictures), hashes(copies)])[:, :1], 4)
    assert len(upright.first) == 0


def test_evaluation_photographs_in_the_pool_are_found_and_counted(
    shared: Path, tmp_path: Path, ray_cluster: object
) -> None:
    pool = list(islice(samples(shared / "data/pool/photos"), 200))
    held = list(islice(samples(shared / "data/target/photos"), 120))
    encoded = [jpeg_bytes(Image.open(io.BytesIO(image)).convert("RGB"), 70) for image, _ in held[:PLANTED]]
    planted = [(image, "planted, and told otherwise") for image in encoded]
    planted += [(image, "planted as it was") for image, _ in held[PLANTED : PLANTED + 5]]
    for name, pairs in (("pool", pool + planted), ("eval", held)):
        write_tar(tmp_path / name / "00000.tar", [row(name, n, *pair) for n, pair in enumerate(pairs)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        'name: clean\nworkspace: ./work\npool: [{source: photos, shards: "pool/*.tar"}]\n'
        'references: {flickr_dev: {shards: "eval/*.tar"}}\nscore: [{kind: perceptual_hash}]\n'
        "select: [{kind: decontaminate, against: flickr_dev}]\n"
    )
    outcome = run(resolve(recipe), Cluster(), until="select")
    hits = outcome.record["steps"][0]["evidence"]["hits"]["flickr_dev"]
    assert hits == {"rows": PLANTED + 5, "image": 5, "hash": PLANTED + 5}
    keys = dict(outcome.ledger.select("uid", "key").iter_rows())
    dropped = outcome.ledger.filter(pl.col("reason") == "matches_reference")
    for uid, other in dropped.select("uid", "duplicate_of").iter_rows():
        assert int(keys[uid][4:]) - len(pool) == int(keys[other][4:])


def row(name: str, number: int, image: bytes, caption: str) -> dict[str, bytes]:
    return {"__key__": f"{name}{number:05d}".encode(), "jpg": image, "txt": caption.encode()}
