"""Planted mismatches of the demo's pool, told from its clean pairs by the connector that the demo trained.

cuvee demo --out DEMO && python -m bench.visual_dependence DEMO

With `--order TEXT` the text is put behind every mismatched caption, to see whether asking for a score helps it.
"""

import argparse
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import rankdata

from stages.alignment.caption_likelihood import CaptionLikelihood

MODELS = Path(__file__).resolve().parents[1] / "pipeline/demo/models"
SCORES = {"visual_dependence": 1, "caption_pmi": 1, "caption_nll_image": -1, "cal_weight": 1}
"""Columns, and the sign with which larger means better."""


def pairs(shard: Path) -> list[dict[str, Any]]:
    """Key, image and caption of a tar's samples."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            key, suffix = member.name.split(".", 1)
            content = archive.extractfile(member)
            if suffix != "json" and content is not None:
                part = "caption" if suffix == "txt" else "image"
                found.setdefault(key, {"image": None, "caption": None})[part] = content.read()
    return [{"source": shard.parent.name, "shard": shard.name, "key": key, **parts} for key, parts in found.items()]


def auc(good: pl.Series, bad: pl.Series) -> float:
    """Probability that a good one is above a bad one, ties counted half."""
    ranks = rankdata(np.concatenate([good.to_numpy(), bad.to_numpy()]))
    return float((ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--order", default="")
    options = parser.parse_args()
    folder = options.demo
    run = sorted((folder / "work/runs").glob("*/run.json"))[-1].parent
    captioner = {"kind": "connector", "connector": str(run), "vision_model": str(MODELS / "encoder")}
    captioner["language_model"] = str(MODELS / "language_model")
    stage = CaptionLikelihood.model_validate({"captioner": captioner})
    stage.check()
    score = stage.open()
    rows = [row for shard in sorted((folder / "corpus/pool").glob("*/*.tar")) for row in pairs(shard)]
    truth = pl.read_parquet(folder / "corpus/truth.parquet")
    plants = {(row["source"], row["shard"], row["key"]): row["plant"] for row in truth.iter_rows(named=True)}
    for row in rows:
        asks = plants.get((row["source"], row["shard"], row["key"])) == "mismatched"
        if row["caption"] is not None:
            row["caption"] = row["caption"].decode("utf-8", "replace") + f" {options.order}".rstrip() * asks
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), stage.batch_rows):
        batch = rows[start : start + stage.batch_rows]
        columns = [pa.array([row[field.name] for row in batch], field.type) for field in stage.reads]
        found += score(pa.record_batch(columns, pa.schema(stage.reads))).to_pylist()
    names = [{name: row[name] for name in ("source", "shard", "key")} for row in rows]
    table = pl.DataFrame([name | scores for name, scores in zip(names, found, strict=True)])
    table = table.join(truth, on=["source", "shard", "key"])
    table = table.drop_nulls("visual_dependence")
    clean = table.filter(pl.col("plant") == "none")
    print(f"| against {len(clean)} clean pairs | " + " | ".join(SCORES) + " |\n| --- |" + " --- |" * len(SCORES))
    for plant in ("mismatched", "boilerplate", "off_domain"):
        bad = table.filter(pl.col("plant") == plant)
        areas = [auc(clean[name] * sign, bad[name] * sign) for name, sign in SCORES.items()]
        print(f"| {len(bad)} {plant} | " + " | ".join(f"{area:.3f}" for area in areas) + " |")


if __name__ == "__main__":
    main()
