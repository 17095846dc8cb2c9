"""How near to a target the captions come that DSIR draws, by the size of the target, beside a random draw.

    python bench/dsir_nearness.py --pool captions.jsonl:laion_2b --target captions.jsonl:capsfuion_official

Each split puts target, held-out target and pool apart (of one file, no two share a line), draws 800 of 4,000 and takes
KL(held-out target || drawn) in nats on hashed unigrams and bigrams: in 10,000 buckets of SHA-256, which are those of
`exact` and of nobody else, and in 2^20, nearly free of collisions. Longer captions have more n-grams, and that alone
brings a draw nearer: `--tokens` gives every draw equally many tokens instead of equally many captions.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stages.measures.divergence import kl_divergence  # noqa: E402
from stages.ngrams import Ngrams, hash_ngrams  # noqa: E402
from stages.rule import Context  # noqa: E402  found beside this file, installed or not
from stages.target.dsir import Dsir  # noqa: E402
from stages.tokens import Integers  # noqa: E402

YARDSTICKS = {"10,000": 10_000, "2^20": 2**20}
METHODS: dict[str, dict[str, Any]] = {
    "exact": {"mode": "exact", "min_length": 1},
    "caption, 10,000 buckets, smoothing 1, sharpness 2": {"buckets": 10_000, "smoothing": 1, "sharpness": 2},
    "caption": {},
}


def texts_of(place: str) -> list[str]:
    """A field of a JSONL or Parquet file; null is an empty caption."""
    name, _, field = place.rpartition(":")
    if name.endswith(".parquet"):
        return pl.read_parquet(name)[field].fill_null("").to_list()
    return [json.loads(line)[field] or "" for line in Path(name).read_text().splitlines()]


def splits(given: argparse.Namespace, target: int, pool: int) -> Iterator[tuple[int, Integers, Integers, Integers]]:
    """Seed, and rows of the target, the held-out target and the pool."""
    one_file = given.pool.rpartition(":")[0] == given.target.rpartition(":")[0]
    for seed in range(given.first, given.first + given.splits):
        random = np.random.Generator(np.random.Philox(seed))
        rows = random.permutation(target)
        others = rows if one_file else random.permutation(pool)
        left = rows[: len(rows) - given.of] if one_file else rows
        yield seed, left[: len(left) - given.held_out], left[len(left) - given.held_out :], others[-given.of :]


def table(texts: list[str], rows: Integers) -> pl.LazyFrame:
    uids = [f"{row:05d}" for row in rows]
    return pl.LazyFrame({"uid": uids, "source": "s", "caption": [texts[row] for row in rows]}).sort("uid")


def drawn(rule: Dsir, rows: pl.LazyFrame, target: pl.LazyFrame, seed: int) -> Integers:
    verdict = rule.judge(rows, Context(seed, target))
    return rows.collect().join(verdict.dropped, on="uid", how="anti")["uid"].cast(pl.Int64).to_numpy()


def at_random(given: argparse.Namespace, rows: Integers, tokens: Integers) -> Integers:
    if given.tokens is None:
        return rows[: given.samples]
    return rows[: int(np.searchsorted(np.cumsum(tokens[rows]), given.tokens, "right"))]


def divergence(target: Ngrams, held_out: Integers, pool: Ngrams, chosen: Integers) -> float:
    def counted(ngrams: Ngrams, rows: Integers) -> Integers:
        mask = np.zeros(len(ngrams.tokens), np.bool_)
        mask[rows] = True
        return ngrams.histogram(mask)

    return kl_divergence(counted(target, held_out), counted(pool, chosen))


def main() -> None:
    """One line of Markdown per method and size of target: mean and standard deviation over the splits."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pool", required=True, help="FILE:FIELD")
    options.add_argument("--target", required=True, help="FILE:FIELD")
    options.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 4000])
    options.add_argument("--of", type=int, default=4000)
    options.add_argument("--samples", type=int, default=800)
    options.add_argument("--tokens", type=int, help="instead of samples")
    options.add_argument("--held-out", type=int, default=2000)
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--first", type=int, default=200, help="number of the first split")
    given = options.parse_args()
    pool, target = texts_of(given.pool), texts_of(given.target)
    hashed = {name: (hash_ngrams(pool, size=size), hash_ngrams(target, size=size)) for name, size in YARDSTICKS.items()}
    budget = {"samples": given.samples} if given.tokens is None else {"tokens": given.tokens}
    found: dict[tuple[str, int, str], list[float]] = {}
    words: dict[tuple[str, int], list[float]] = {}
    for seed, mine, held_out, rows in splits(given, len(target), len(pool)):
        candidates = table(pool, rows)
        draws = {("random", 0): at_random(given, rows, hashed["2^20"][0].tokens)}
        for size in given.sizes:
            for name, settings in METHODS.items():
                rule = Dsir.model_validate({**budget, **settings})
                draws[name, size] = drawn(rule, candidates, table(target, mine[:size]), seed)
        for (name, size), chosen in draws.items():
            words.setdefault((name, size), []).append(float(hashed["2^20"][0].tokens[chosen].mean()))
            for yard, (pool_ngrams, target_ngrams) in hashed.items():
                value = divergence(target_ngrams, held_out, pool_ngrams, chosen)
                found.setdefault((name, size, yard), []).append(value)
    print("| draw | target captions | " + " | ".join([*YARDSTICKS, "tokens"]) + " |")
    print("| --- " * (3 + len(YARDSTICKS)) + "|")
    for name, size in dict.fromkeys((name, size) for name, size, _ in found):
        values = [found[name, size, yard] for yard in YARDSTICKS]
        cells = " | ".join(f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}" for each in values)
        print(f"| {name} | {size or ''} | {cells} | {np.mean(words[name, size]):.1f} |")


if __name__ == "__main__":
    main()
