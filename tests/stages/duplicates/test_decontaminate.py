from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from stages.duplicates.decontaminate import RECALL, Decontaminate
from stages.near_texts import MinHash
from stages.near_texts.bands import choose_bands, found_share
from stages.rule import DROPPED_SCHEMA, Context, Verdict
from tests.stages.duplicates.test_semdedup import planted
from tests.stages.parts import judged_in_parts

WORDS = "a dog cat red small runs sits on under the table grass near big old tree with ball two men"


def table(n: int, seed: int, prefix: str) -> pl.DataFrame:
    """Rows of all that can be compared; a third of them has a twin among the rows of another seed in some way."""
    noise, shared = np.random.Generator(np.random.Philox(seed)), np.random.Generator(np.random.Philox(99))
    common = shared.integers(0, 2**64, 20, dtype=np.uint64)
    hashes = noise.integers(0, 2**64, n, dtype=np.uint64)
    near = noise.choice(n, n // 3, replace=False)
    flips = np.uint64(1) << noise.integers(0, 64, len(near)).astype(np.uint64)
    hashes[near] = common[noise.integers(0, 20, len(near))] ^ flips
    others = noise.integers(0, 2**64, (n, 7), dtype=np.uint64)
    embeddings = np.concatenate([planted(n, 8, seed)[: n - n // 5], planted(40, 8, 7)[noise.integers(0, 40, n // 5)]])
    captions = [" ".join(noise.choice(WORDS.split(" "), 7)) for _ in range(n)]
    captions[: n // 10] = ["A dog runs on the GRASS near two men"] * (n // 10)
    return pl.DataFrame(
        {
            "uid": [f"{prefix}{number:04d}" for number in range(n)],
            "source": ["s"] * n,
            "image_hash": [f"{number % 17}-{seed if number % 3 else 0}" for number in range(n)],
            "phash": hashes,
            "phash_turned": np.concatenate([hashes[:, None], others], axis=1).tolist(),
            "grey_deviation": np.where(np.arange(n) % 11, 50.0, 1.0),
            "image_embedding": embeddings.astype(np.float32).tolist(),
            "caption": captions,
        },
        schema_overrides={
            "grey_deviation": pl.Float32, "phash_turned": pl.List(pl.UInt64), "image_embedding": pl.List(pl.Float16)
        },
    )  # fmt: skip


SETS = {"one": table(60, 2, "o"), "two": table(40, 3, "t")}
POOL = table(240, 1, "p")
ALL = {"against": ["two", "one"], "cosine": 0.9, "jaccard": 0.5}


def judge(settings: dict[str, Any], rows: pl.DataFrame = POOL, sets: dict[str, pl.DataFrame] = SETS) -> Verdict:
    rule = Decontaminate.model_validate(settings)
    references = {name: each.lazy() for name, each in sets.items()}
    verdict = rule.judge(rows.lazy(), Context(0, references=references))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    assert set(verdict.dropped["reason"]) <= {"matches_reference"} and verdict.dropped["uid"].is_sorted()
    return verdict


def grams(text: str) -> set[str]:
    text = text.lower()
    return {text[at : at + 3] for at in range(len(text) - 2)}


def alike(row: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Way -> similarity, for every way in which two rows match under `ALL`."""
    found = {"image": 1.0} if row["image_hash"] == other["image_hash"] else {}
    bits = (row["phash"] ^ other["phash"]).bit_count()
    if bits <= 4 and min(row["grey_deviation"], other["grey_deviation"]) >= 4:
        found["hash"] = 1 - bits / 64
    one, two = (np.array(each["image_embedding"], np.float64) for each in (row, other))
    cosine = round(float(one @ two / np.linalg.norm(one) / np.linalg.norm(two)), 12)
    if cosine > 0.9:
        found["embedding"] = cosine
    mine, theirs = grams(row["caption"]), grams(other["caption"])
    if (jaccard := len(mine & theirs) / len(mine | theirs)) >= 0.5:
        found["caption"] = jaccard
    return found


def test_every_match_is_named_by_the_best_way_and_counted_by_all() -> None:
    hits: dict[str, dict[str, set[str]]] = {name: {} for name in SETS}
    expected = {}
    for row in POOL.iter_rows(named=True):
        best: tuple[Any, ...] = ()
        for place, name in enumerate(ALL["against"]):  # type: ignore[arg-type]
            for other in SETS[name].iter_rows(named=True):
                for way, value in alike(row, other).items():
                    hits[name].setdefault(way, set()).add(row["uid"])
                    order = ("image", "hash", "embedding", "caption").index(way)
                    key = (order, -round(value, 12), place, other["uid"])
                    best = min(best, key) if best else key
        if best:
            expected[row["uid"]] = (best[3], -best[1])
    verdict = judge(ALL)
    found = {uid: (other, round(value, 12)) for uid, _, other, value in verdict.dropped.iter_rows()}
    assert found == expected and len(found) > 100
    assert verdict.evidence["expected_recall_at_jaccard"] >= 0.9999
    for name, ways in hits.items():
        for way, uids in ways.items():
            assert verdict.evidence["hits"][name][way] == len(uids)
        assert verdict.evidence["hits"][name]["rows"] == len(set().union(*ways.values()))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_captions_at_the_threshold_are_found(threshold: float) -> None:
    """Texts of 60 different 3-grams, and their beginnings with just the share of these that the threshold asks for."""
    noise = np.random.Generator(np.random.Philox(12))
    letters = np.array([chr(code) for code in range(0x4E00, 0x9000)])
    captions = ["".join(noise.choice(letters, 62, replace=False)) for _ in range(500)]
    rows = pl.DataFrame({"uid": [f"{at:03d}" for at in range(500)], "source": "s", "caption": captions})
    cut = rows.with_columns(pl.col("caption").str.head(round(60 * threshold) + 2))
    verdict = judge({"against": "one", "exact": False, "max_distance": None, "jaccard": threshold}, cut, {"one": rows})
    assert len(verdict.dropped) == 500 and set(verdict.dropped["similarity"]) == {threshold}


@pytest.mark.parametrize("threshold", [at / 100 for at in range(30, 101)])
def test_the_recall_is_within_reach(threshold: float) -> None:
    bands, rows = choose_bands(threshold, RECALL, MinHash.permutations)
    assert found_share(threshold, bands, rows) >= RECALL


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({"max_distance": None}, "image"),
        ({"exact": False}, "hash"),
        ({"exact": False, "max_distance": None, "cosine": 0.9}, "embedding"),
        ({"exact": False, "max_distance": None, "jaccard": 0.8}, "caption"),
    ],
)
def test_each_way_works_alone(settings: dict[str, Any], way: str) -> None:
    verdict = judge({"against": "one", **settings})
    assert len(verdict.dropped) > 3 and verdict.evidence["named_by"] == {way: len(verdict.dropped)}
    assert set(verdict.evidence["hits"]["one"]) == {"rows", way}


def test_a_turned_reference_is_found_where_that_is_asked_for() -> None:
    reference = SETS["one"].head(1).with_columns(pl.lit(50.0, pl.Float32).alias("grey_deviation"))
    turned = reference["phash_turned"][0][5]
    row = reference.with_columns(
        pl.lit("p").alias("uid"), pl.lit([turned] * 8, pl.List(pl.UInt64)).alias("phash_turned")
    )
    settings = {"against": "one", "exact": False}
    assert judge(settings | {"turned": True}, row, {"one": reference}).dropped["similarity"].to_list() == [1.0]
    row = row.with_columns(pl.lit(turned, pl.UInt64).alias("phash"))
    assert judge(settings, row, {"one": reference}).dropped.is_empty()


def test_one_two_and_seven_parts_decide_alike() -> None:
    rule = Decontaminate.model_validate(ALL)
    whole = judge(ALL)
    references = {name: each.lazy() for name, each in SETS.items()}
    for parts in (1, 2, 7):
        verdict = judged_in_parts(rule, POOL, parts, references=references)
        assert verdict.dropped.equals(whole.dropped) and verdict.evidence == whole.evidence


def test_rows_without_a_value_match_nothing() -> None:
    names = ("image_hash", "phash", "grey_deviation", "image_embedding", "caption")
    empty = POOL.with_columns(pl.lit(None).cast(POOL.schema[name]).alias(name) for name in names)
    assert judge(ALL, empty).dropped.is_empty()
    assert judge(ALL, POOL.head(0)).dropped.is_empty()


@pytest.mark.parametrize(
    "settings",
    [{}, {"against": []}, {"against": "one", "exact": False, "max_distance": None}, {"against": "one", "cosine": 1},
     {"against": "one", "max_distance": None, "turned": True}, {"against": "one", "jaccard": 0}],
)  # fmt: skip
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decontaminate.model_validate(settings)
