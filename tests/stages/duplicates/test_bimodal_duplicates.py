from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.duplicates.bimodal_duplicates import BimodalDuplicates, asked
from stages.near_texts import bands, pairs
from stages.near_vectors import neighbours
from stages.rule import DROPPED_SCHEMA, Context, Verdict
from tests.stages.duplicates.test_semdedup import planted
from tests.stages.parts import judged_in_parts

CAPTIONS = (
    "two dogs run over the wet grass of a park",
    "Two dogs run  over the wet grass of a park",
    "two dogs run over the wet grass of a park!",
    "a red kettle stands on the stove",
    "image",
    "",
    None,
)
BASES = (0, 2**64 - 1, 0x0123456789ABCDEF)
LINE = st.tuples(
    st.one_of(st.none(), st.sampled_from("ab")),
    st.builds(lambda base, bit: base ^ (1 << bit), st.sampled_from(BASES), st.integers(0, 2)),
    st.sampled_from([50.0, 50.0, 1.0]),
    st.sampled_from(CAPTIONS),
    st.one_of(st.none(), st.integers(0, 2).map(float)),
)
SCHEMA = {
    "image_hash": pl.String,
    "phash": pl.UInt64,
    "grey_deviation": pl.Float32,
    "caption": pl.String,
    "score": pl.Float32,
}


def table(lines: list[tuple[Any, ...]]) -> pl.DataFrame:
    rows = pl.DataFrame(lines, schema=SCHEMA, orient="row")
    uids = pl.Series("uid", [f"{number:04d}" for number in range(len(lines))], pl.String)
    return rows.with_columns(uids, pl.lit("s").alias("source"))


def judge(settings: dict[str, Any], rows: pl.DataFrame) -> Verdict:
    verdict = BimodalDuplicates.model_validate(settings).judge(rows.lazy(), Context(0))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA and verdict.dropped["uid"].is_sorted()
    return verdict


def fates(verdict: Verdict) -> dict[str, tuple[str, float]]:
    return {uid: (other, round(value, 9)) for uid, _, other, value in verdict.dropped.iter_rows()}


def grams(text: str) -> set[str]:
    text = " ".join(text.lower().split())
    return {text[at : at + 3] for at in range(len(text) - 2)}


def same_image(one: dict[str, Any], other: dict[str, Any], how: str) -> float:
    """Similarity of the images of two rows; 0 where they are not alike."""
    if how == "exact":
        return float(one["image_hash"] is not None and one["image_hash"] == other["image_hash"])
    bits = (one["phash"] ^ other["phash"]).bit_count()
    return 1 - bits / 64 if bits <= 1 and min(one["grey_deviation"], other["grey_deviation"]) >= 4 else 0.0


def same_caption(one: dict[str, Any], other: dict[str, Any], how: str) -> float:
    if not one["caption"] or not other["caption"]:
        return 0.0
    if how == "exact":
        return float(one["caption"] == other["caption"])
    mine, theirs = grams(one["caption"]), grams(other["caption"])
    jaccard = len(mine & theirs) / len(mine | theirs)
    return jaccard if jaccard >= 0.5 else 0.0


IMAGES = {"exact": "exact", "near": {"kind": "near", "max_distance": 1}}
SIDES = {"exact": "exact", "near": {"kind": "near", "threshold": 0.5, "recall": 0.99}}


@pytest.mark.parametrize("when", ["both", "either"])
@pytest.mark.parametrize("captions", ["exact", "near"])
@pytest.mark.parametrize("images", ["exact", "near"])
@pytest.mark.parametrize("prefer", [None, "score"])
@settings(max_examples=40)
@given(lines=st.lists(LINE, max_size=14))
def test_the_best_of_what_is_alike_stays(when, captions, images, prefer, lines) -> None:  # type: ignore[no-untyped-def]
    rows = table(lines)
    best = sorted(
        rows.iter_rows(named=True),
        key=lambda row: (-(row["score"] if row["score"] is not None else -1) if prefer else 0, row["uid"]),
    )
    kept: list[dict[str, Any]] = []
    expected = {}
    for row in best:
        for other in kept:
            sides = same_image(row, other, images), same_caption(row, other, captions)
            if all(sides) if when == "both" else any(sides):
                expected[row["uid"]] = other["uid"], round(min(sides) if when == "both" else max(sides), 9)
                break
        else:
            kept.append(row)
    rule = {"images": IMAGES[images], "captions": SIDES[captions], "when": when, "prefer": prefer}
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    assert fates(judge(rule, shuffled)) == expected


def test_a_crowd_on_both_sides_is_quick() -> None:
    crowd = [("a", 0, 50.0, f"caption {number}", 0.0) for number in range(3_000)]
    crowd += [(f"b{number}", 0, 50.0, "image", 0.0) for number in range(3_000)]
    verdict = judge({"images": "exact", "captions": "exact"}, table([*crowd, *crowd]))
    assert len(verdict.dropped) == 6_000 and verdict.evidence["groups"] == 6_000
    assert len(judge({"images": "exact", "captions": "exact", "when": "either"}, table(crowd)).dropped) == 5_998


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of captions each comparison looks at."""
    counts: list[int] = []
    exact = pairs.jaccards
    monkeypatch.setattr(pairs, "jaccards", lambda *facts: counts.append(len(facts[1])) or exact(*facts))
    return counts


TITLES = [f"poster number {number} by a studio that prints on heavy cotton paper" for number in range(500)]
"""All close to each other: 124,750 pairs."""


def captioned(images: list[str], captions: list[str]) -> pl.DataFrame:
    return table([(image, 0, 50.0, caption, 0.0) for image, caption in zip(images, captions, strict=True)])


def test_captions_are_compared_only_where_images_are_alike(compared: list[int]) -> None:
    images = ["twin" if number in (7, 70, 400) else str(number) for number in range(500)]
    verdict = judge({"images": "exact", "captions": "near"}, captioned(images, TITLES))
    assert verdict.dropped.select("uid", "duplicate_of").rows() == [("0070", "0007"), ("0400", "0007")]
    assert sum(compared) == 3
    assert verdict.evidence["nothing_to_compare"] == {"images": 0, "captions": 0}


@pytest.mark.parametrize("before", [0, 500])
@pytest.mark.parametrize("when", ["both", "either"])
def test_of_a_crowd_few_pairs_are_compared(
    when: str, before: int, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing that comes before the crowd takes any of it out."""
    monkeypatch.setattr(asked, "MOST_CANDIDATES", 1 << 14)
    monkeypatch.setattr(bands, "BLOCK_PAIRS", 1 << 12)
    captions = [*(f"{number} " * 9 for number in range(before)), *TITLES]
    images = ["placeholder" if when == "both" else str(number) for number in range(len(captions))]
    verdict = judge({"images": "exact", "captions": "near", "when": when}, captioned(images, captions))
    assert len(verdict.dropped.filter(pl.col("uid") >= f"{before:04d}")) >= 497
    assert sum(compared) < 20_000 and max(compared) < 1 << 13


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), when=st.sampled_from(["both", "either"]), images=st.sampled_from([*IMAGES, None]))
def test_by_halves_the_same_is_decided(seed: int, when: str, images: str | None) -> None:
    """The comparisons of a pool of a few dozen rows, as one would cut those of very many."""
    noise = np.random.Generator(np.random.Philox(seed))
    words = ["".join(noise.choice(list("abcdef"), 4)) for _ in range(12)]
    bases = [noise.choice(words, 6) for _ in range(4)]
    lines = []
    for _ in range(60):
        drawn = np.where(noise.random(6) < 0.2, noise.choice(words, 6), bases[noise.integers(4)])
        bits = BASES[noise.integers(3)] ^ (1 << int(noise.integers(0, 4)))
        caption = (" ".join(drawn), "", None)[noise.choice(3, p=[0.9, 0.05, 0.05])]
        lines.append((str(noise.integers(20)), bits, (50.0, 1.0)[noise.integers(8) // 7], caption, None))
    rule = {"images": IMAGES[images] if images else None, "captions": {"kind": "near", "threshold": 0.5}, "when": when}
    whole = judge(rule, table(lines))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MOST_CANDIDATES", 5), ("PIECES_AT_A_TIME", 1)):
            patch.setattr(asked, name, value)
        patch.setattr(bands, "BLOCK_PAIRS", 8)
        halves = judge(rule, table(lines))
    assert halves.dropped.equals(whole.dropped) and halves.evidence == whole.evidence


def test_one_side_alone_decides_by_itself() -> None:
    rows = table([("a", 0, 50.0, "x", 0.0), ("a", 7, 50.0, "y", 0.0), ("b", 7, 50.0, "x", 0.0)])
    assert fates(judge({"images": "exact"}, rows)) == {"0001": ("0000", 1.0)}
    assert fates(judge({"captions": "exact"}, rows)) == {"0002": ("0000", 1.0)}
    assert judge({"images": "exact"}, rows).evidence["nothing_to_compare"] == {"images": 0}


def test_what_is_compared_may_be_preferred_too() -> None:
    rows = table([("a", 1, 50.0, "x", 0.0), ("b", 1, 60.0, "y", 0.0)])
    assert fates(judge({"images": "near", "prefer": "grey_deviation"}, rows)) == {"0000": ("0001", 1.0)}
    rule = BimodalDuplicates.model_validate({"images": "near", "prefer": "grey_deviation"})
    assert rule.columns() == ("phash", "grey_deviation")


def test_merged_captions_have_a_reason_of_their_own() -> None:
    rows = table([("a", 0, 50.0, "x", 0.0), ("a", 7, 50.0, "y", 1.0)])
    rule = BimodalDuplicates(images={"kind": "exact"}, merge_captions=True, prefer="score")
    verdict = rule.judge(rows.lazy(), Context(0))
    assert rule.merges_captions() and not BimodalDuplicates(images={"kind": "exact"}).merges_captions()
    assert verdict.dropped.rows() == [("0000", "merged_caption", "0001", 1.0)]


def embedded(n: int) -> pl.DataFrame:
    noise = np.random.Generator(np.random.Philox(5))
    captions = [CAPTIONS[number] for number in noise.integers(0, len(CAPTIONS), n)]
    hashes = [BASES[number % 3] ^ (1 << int(noise.integers(0, 6))) for number in range(n)]
    rows = table([(str(number % 40), hashes[number], 50.0, captions[number], float(number % 7)) for number in range(n)])
    turned = [[each, *noise.integers(0, 2**64, 7, dtype=np.uint64).tolist()] for each in hashes]
    lists = pl.Series("image_embedding", planted(n, 8).astype(np.float32).tolist(), pl.List(pl.Float16))
    return rows.with_columns(lists, pl.Series("phash_turned", turned, pl.List(pl.UInt64)))


SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {"images": "exact", "captions": "exact", "when": "either"},
    "near": {"images": "near", "captions": "near"},
    "turned": {"images": {"kind": "near", "turned": True}, "captions": "near", "prefer": "score"},
    "semantic": {"images": {"kind": "semantic", "epsilon": 0.2}, "captions": "near", "prefer": "score"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_one_two_and_seven_parts_decide_alike(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS_PER_PIECE", 50)
    rows, rule = embedded(300), BimodalDuplicates.model_validate(settings)
    whole = judge(settings, rows)
    assert len(whole.dropped) > 30 and not set(whole.dropped["uid"]) & set(whole.dropped["duplicate_of"])
    for parts in (1, 2, 7):
        verdict = judged_in_parts(rule, rows, parts)
        assert verdict.dropped.equals(whole.dropped) and verdict.evidence == whole.evidence
        assert verdict.fit == whole.fit
        assert judged_in_parts(rule, rows, parts, fit=whole.fit).fit == whole.fit


def test_semantic_images_are_those_with_close_embeddings() -> None:
    rows = embedded(200).with_columns(pl.lit("one caption").alias("caption"))
    exact = planted(200, 8).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    kept: list[int] = []
    expected = {}
    for row in range(200):
        close = [other for other in kept if exact[row] @ exact[other] > 0.9]
        if close:
            expected[f"{row:04d}"] = f"{close[0]:04d}"
        else:
            kept.append(row)
    settings = {"images": {"kind": "semantic", "epsilon": 0.1, "clusters": 5, "probe": 5}, "captions": "exact"}
    assert {uid: other for uid, (other, _) in fates(judge(settings, rows)).items()} == expected


@pytest.mark.parametrize(
    "settings",
    [{}, {"images": "nearly"}, {"images": {"kind": "semantic"}}, {"captions": "exact", "merge_captions": True},
     {"images": "exact", "captions": "near", "merge_captions": True}, {"images": "exact", "when": "never"}],
)  # fmt: skip
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BimodalDuplicates.model_validate(settings)


def test_a_preference_is_a_number() -> None:
    rows = table([("a", 0, 50.0, "x", 0.0)]).with_columns(pl.lit("high").alias("score"))
    with pytest.raises(RecipeError, match="'score' holds String"):
        judge({"images": "exact", "prefer": "score"}, rows)
