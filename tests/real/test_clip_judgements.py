"""The CLIP score against people: Kendall's tau-b with the mean of three experts (arXiv:2104.08718, section 4.1)."""

import csv
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from schemas.columns import CAPTION, IMAGE
from stages.alignment.clip.stage import Clip

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
TABLE = SHARED / "data/judgements/flickr8k_expert_300.csv"
MODEL = SHARED / "models/tiny-dual-encoder"


def test_score_agrees_with_experts() -> None:
    """The model's card states 0.489 on all 5,664 pairs whose caption is not the image's own; here are 300 images."""
    if not TABLE.is_file() or not MODEL.is_dir():
        pytest.skip("the judgements or the tiny dual encoder are not in ../shared")
    from scipy.stats import kendalltau

    with TABLE.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["caption_of_key"] != row["key"]]
    assert len(rows) > 1500
    images = photos()
    keys = sorted({row["key"] for row in rows})
    stage = Clip(model=str(MODEL), device="cpu")
    scorer = stage.open()
    # Each photo once: its embedding serves all captions it was judged with.
    columns = [pa.array([images[key] for key in keys], IMAGE.type), pa.nulls(len(keys), CAPTION.type)]
    by_image = scorer(pa.record_batch(columns, pa.schema(stage.reads)))["image_embedding"]
    columns = [pa.nulls(len(rows), IMAGE.type), pa.array([row["caption"] for row in rows], CAPTION.type)]
    by_text = scorer(pa.record_batch(columns, pa.schema(stage.reads)))["text_embedding"]
    photo = dict(zip(keys, np.array(by_image.to_pylist(), np.float32), strict=True))
    scores = [float(photo[row["key"]] @ text) for row, text in zip(rows, np.array(by_text.to_pylist()), strict=True)]
    experts = [sum(int(row[f"expert_{number}"]) for number in (1, 2, 3)) for row in rows]
    tau = kendalltau(scores, experts, variant="b").statistic
    print(f"tau-b {tau:.3f} over {len(rows)} pairs of {len(keys)} photos")
    assert tau > 0.4
    assert kendalltau(scores[::-1], experts, variant="b").statistic < 0.1


def photos() -> dict[str, bytes]:
    """The judged photos by key."""
    found = {}
    for shard in sorted((SHARED / "data/judgements/photos").glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if member.name.endswith(".jpg") and stream is not None:
                    found[Path(member.name).stem] = stream.read()
    return found
