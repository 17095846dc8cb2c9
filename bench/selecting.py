"""Selectors: CPU seconds by number of rows on generated score tables, and what they find in the real pool.

python -m bench.selecting [--rows 10000 100000 1000000] [--shared SHARED]; one process, one thread, the scores already
there. Beside `m4` the same program over rows instead of patterns, by HiGHS, for its linear part: `most_rows`.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.judgements import embedded, samples
from stages.alignment.clip.stage import Clip
from stages.kinds import kinds
from stages.rule import Context, Rule
from stages.target.m4.attributes import patterns
from stages.target.m4.program import moments, most_rows
from stages.target.normsim import gram, normsim_2, normsim_inf
from stages.vectors import cosines, vectors

WIDTH = 64
SENSITIVE, LABELS = 3, 6
SETTINGS: dict[str, dict[str, Any]] = {
    "random": {},
    "best": {"column": "clip_score"},
    "longest_caption": {},
    "odis": {"scores": [f"score_{number}" for number in range(6)]},
    "sus_x": {"classes": [f"{number}" for number in range(10)], "column": "class"},
    "m4": {
        "sensitive": [{"column": f"s{number}", "value": True, "share": 0.5} for number in range(SENSITIVE)],
        "labels": [{"column": f"y{number}", "value": True} for number in range(LABELS)],
    },
    "deft": {"clusters": 20},
}
MOST_EMBEDDINGS = 100_000
PHOTOS, PRODUCTS = 40, 360
"""A tenth of the pool looks like the target."""


def table(rows: int) -> pl.DataFrame:
    """Scores that correlate, biased attributes, and embeddings where there are not too many rows."""
    noise = np.random.default_rng(rows)
    shared = noise.normal(size=rows)
    columns = {f"score_{number}": (shared + noise.normal(size=rows)).astype(np.float32) for number in range(6)}
    columns |= {f"class_{number}": noise.normal(0.2, 0.05, rows).astype(np.float32) for number in range(10)}
    columns |= {"clip_score": noise.normal(0.25, 0.05, rows).astype(np.float32)}
    columns |= attributes(rows, noise)
    captions = [" ".join(["word"] * count) for count in range(1, 30)]
    frame = pl.DataFrame({"uid": [f"{row * 2654435761 % 2**64:032x}" for row in range(rows)], **columns})
    frame = frame.with_columns(pl.lit("s").alias("source"), pl.Series("caption", noise.choice(captions, rows)))
    if rows <= MOST_EMBEDDINGS:
        points = (noise.normal(size=(rows, WIDTH)) + noise.normal(size=(20, WIDTH))[noise.integers(0, 20, rows)]) / 11
        lists = pl.Series(points.astype(np.float32)).arr.to_list().cast(pl.List(pl.Float16))
        frame = frame.with_columns(lists.alias("image_embedding"))
    return frame.sort("uid")


def attributes(rows: int, noise: np.random.Generator) -> dict[str, np.ndarray]:
    """Sensitive ones of other shares than a half, each label tied to one of them."""
    s = {f"s{number}": noise.random(rows) < 0.35 for number in range(SENSITIVE)}
    y = {f"y{number}": noise.random(rows) < np.where(s[f"s{number % SENSITIVE}"], 0.5, 0.2) for number in range(LABELS)}
    return s | y


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds, the median of three."""
    found = []
    for _ in range(3):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return sorted(found)[1]


def speed(rows: list[int]) -> None:
    """One line per selector and number of rows."""
    for count in rows:
        frame = table(count)
        for kind, settings in SETTINGS.items():
            if kind == "deft" and count > MOST_EMBEDDINGS:
                continue
            rule = kinds(Rule)[kind].model_validate({"kind": kind, "fraction": 0.05, **settings})
            lazy = frame.select("uid", "source", *rule.columns()).lazy()
            print(f"{kind:16} {count:9,} rows  {seconds(partial(rule.judge, lazy, Context(0))):7.2f} s", flush=True)
        bias(frame)


def bias(frame: pl.DataFrame) -> None:
    """What m4 leaves of both biases, and over patterns as over rows the same bound."""
    rule = kinds(Rule)["m4"].model_validate({"kind": "m4", "fraction": 0.05, **SETTINGS["m4"]})
    evidence = rule.judge(frame.lazy(), Context(0)).evidence
    print(f"m4: {evidence['patterns']} patterns, {evidence['bias']}, effective rows {evidence['effective_rows']:.0f}")
    names = [f"s{number}" for number in range(SENSITIVE)] + [f"y{number}" for number in range(LABELS)]
    bits = frame.select(names).to_numpy()
    found, of_row = patterns(bits, SENSITIVE)
    shares, means = np.full(SENSITIVE, 0.5), found.rows @ found.labels / len(bits)
    few, all_ = (
        moments(found.sensitive[at].astype(float), found.labels[at].astype(float), shares, means, (0.0, 0.01))
        for at in (slice(None), of_row)
    )
    if len(bits) <= MOST_EMBEDDINGS:
        began = time.process_time()
        over_patterns = most_rows(found.rows.astype(float), few)
        middle = time.process_time()
        over_rows = most_rows(np.ones(len(bits)), all_)
        ended = time.process_time()
        print(
            f"m4, rows that its bounds leave: {over_patterns:.3f} by patterns in {middle - began:.3f} s, "
            f"{over_rows:.3f} by rows in {ended - middle:.3f} s"
        )


def real(shared: Path) -> None:
    """NormSim by the size of the target; how far a core-set and a random draw leave the farthest image."""
    clip = Clip(model=str(shared / "models/tiny-dual-encoder"), device="cpu")
    photos, products, target = (
        vectors(embedded(clip, list(islice(samples(shared / "data" / folder), count)))[0])
        for folder, count in (("pool/photos", 10 * PHOTOS), ("pool/fashion", PRODUCTS), ("target/photos", 500))
    )
    for size in (50, 100, 200, 500):
        scores = {"normsim_2": lambda rows, to: normsim_2(rows, gram(to)), "normsim_inf": normsim_inf}
        for name, score in scores.items():
            found = []
            for start in range(0, len(photos), PHOTOS):
                pool = np.concatenate([photos[start : start + PHOTOS], products])
                found.append(float((np.argsort(-score(pool, target[:size]), kind="stable")[:PHOTOS] < PHOTOS).mean()))
            print(f"{name:12} target {size:4}: precision at 10 % {np.mean(found):.3f}, least {min(found):.3f}")
    everything = np.concatenate([photos, products])
    lists = pl.Series(everything.astype(np.float32)).arr.to_list().cast(pl.List(pl.Float16))
    uids = [f"{row:05d}" for row in range(len(everything))]
    rows = pl.DataFrame({"uid": uids, "source": "s", "image_embedding": lists})
    for kind, settings in (("deft", {"easy": 0.2}), ("deft", {"easy": 0.5}), ("random", {})):
        rule = kinds(Rule)[kind].model_validate({"kind": kind, "samples": 76, **settings})
        radii = []
        for seed in range(10):
            lost = set(rule.judge(rows.lazy(), Context(seed)).dropped["uid"])
            chosen = everything[[row for row, uid in enumerate(uids) if uid not in lost]]
            radii.append(1 - float(cosines(everything, chosen).max(axis=1).min()))
        print(f"{kind} {settings}: farthest image from a kept one, median of 10 seeds {np.median(radii):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shared", type=Path)
    given = parser.parse_args()
    speed(given.rows)
    if given.shared:
        real(given.shared)
