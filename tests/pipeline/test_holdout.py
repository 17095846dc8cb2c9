"""What matches a held-out image is found by bytes and by hash, and no blank image stands for another."""

import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
from PIL import Image

from pipeline.cluster import Cluster
from pipeline.holdout import matching
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.tables import TARGET_ROLE
from tests.pools import picture, sample, write_tar


def encoded(image: Image.Image, **how: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **how)
    return buffer.getvalue()


def flat(colour: str) -> bytes:
    return encoded(Image.new("RGB", (64, 48), colour))


def test_copies_match_and_blank_images_do_not(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    recipe = make_pool(rows=3)
    again = encoded(Image.open(io.BytesIO(picture(0))), quality=70)
    held = [(30_000, picture(1)), (30_001, again), (30_002, flat("white")), (30_003, flat("navy"))]
    write_tar(recipe.parent / "target" / "00000.tar", [{**sample(number), "jpg": image} for number, image in held])
    blank = [(40_000, flat("red")), (40_001, flat("navy"))]
    write_tar(recipe.parent / "pool/alpha/blank.tar", [{**sample(number), "jpg": image} for number, image in blank])
    table = run(resolve(recipe), Cluster(), until="score").chosen.table
    target = table.samples.filter(pl.col("role") == TARGET_ROLE).select("uid")
    found = matching(table, table.samples, target).join(table.samples, on="uid")
    similar = dict(found.select("key", "similarity").iter_rows())
    assert set(similar) == {"s000000", "s000001", "s040001"}  # the red one is like the blank ones by its hash alone
    assert similar["s000001"] == similar["s040001"] == 1.0
