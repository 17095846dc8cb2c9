from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.cluster import Cluster
from pipeline.tasks import on_cluster
from schemas.errors import RecipeError
from stages.duplicates.minhash_captions import MinHashCaptions
from stages.duplicates.minhash_captions import sketches as sketching
from stages.duplicates.minhash_captions import witnesses as witnessing
from stages.near_texts import Cut
from stages.near_texts import bands as banding
from stages.normal_form import normal_form
from stages.rule import DROPPED_SCHEMA, Context, Mapper, Verdict, in_order

EVERY = {"recall": 1 - 1e-12, "permutations": 64}
"""One minimum a band and 64 of them: in texts as short as here no pair is missed."""


def table(captions: list[str | None], scores: list[float | None] | None = None) -> pl.DataFrame:
    n = len(captions)
    return pl.DataFrame(
        {
            "uid": [f"{at:04d}" for at in range(n)],
            "source": ["s"] * n,
            "caption": captions,
            "score": scores or [0.0] * n,
        },
        schema_overrides={"caption": pl.String, "score": pl.Float32},
    )


def parts(rows: pl.DataFrame, number: int, seed: int = 0) -> tuple[pl.LazyFrame, ...]:
    """The rows in so many parts, as shards might fall, each in uid order."""
    which = np.random.Generator(np.random.Philox(seed)).integers(0, number, len(rows))
    return tuple(rows.filter(pl.Series(which == part)).lazy() for part in range(number))


def judge(rows: pl.DataFrame, number: int = 1, mapper: Mapper = in_order, **settings: Any) -> Verdict:
    rule = MinHashCaptions(kind="minhash_captions", **settings)
    verdict = rule.judge(rows.lazy(), Context(0, parts=parts(rows, number, number), map=mapper))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    assert set(verdict.dropped["reason"]) <= {"near_duplicate_caption"}
    return verdict


def fates(verdict: Verdict) -> dict[str, tuple[str, float]]:
    return {uid: (of, similarity) for uid, _, of, similarity in verdict.dropped.iter_rows()}


def near(one: str, other: str, cut: Cut) -> float:
    a, b = set(cut.spelled(normal_form(one))), set(cut.spelled(normal_form(other)))
    return len(a & b) / max(len(a | b), 1)


def brute(captions: list[str], cut: Cut, threshold: float) -> dict[str, tuple[str, float]]:
    """The rule's sentence on witnesses, spelled out."""
    found: dict[str, tuple[str, float]] = {}
    for at, caption in enumerate(captions):
        for before in range(at):
            similarity = near(captions[before], caption, cut)
            if f"{before:04d}" not in found and similarity >= threshold:
                found[f"{at:04d}"] = (f"{before:04d}", similarity)
                break
    return found


CAPTIONS = st.lists(st.text(st.sampled_from("abAB \t."), max_size=9), max_size=14)
SETTINGS = st.sampled_from([("char", (4,)), ("char", (2,)), ("word", (1,)), ("word", (1, 2))])


@given(CAPTIONS, SETTINGS, st.sampled_from([0.5, 0.75, 1.0]), st.sampled_from([0, 2, 1000]))
def test_a_row_is_dropped_iff_a_kept_row_before_it_is_close(
    captions: list[str], ngrams: tuple[str, tuple[int, ...]], threshold: float, at_once: int
) -> None:
    kind, sizes = ngrams
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(witnessing, "AT_ONCE", at_once)
        patch.setattr(witnessing, "PER_TEXT", 0)
        verdict = judge(table(list(captions)), ngrams=kind, sizes=sizes, threshold=threshold, **EVERY)
    assert fates(verdict) == brute(captions, Cut(kind, sizes), threshold)  # type: ignore[arg-type]


CHAIN: list[str | None] = ["a b c d e f g h", "b c d e f g h i", "c d e f g h i j"]
"""Neighbours share 7 of 9 words, the ends 6 of 10."""
WORDS: dict[str, Any] = {"ngrams": "word", "sizes": (1,), "threshold": 0.7}


def test_no_chains_unless_asked() -> None:
    assert fates(judge(table(CHAIN), **WORDS)) == {"0001": ("0000", 7 / 9)}
    connected = judge(table(CHAIN), groups="connected", **WORDS)
    assert fates(connected) == {"0001": ("0000", 7 / 9), "0002": ("0000", 0.6)}
    assert connected.evidence["groups"] == 1
    assert connected.evidence["largest_groups"][0]["dropped"] == 2


@given(CAPTIONS, st.sampled_from([0.5, 0.75]))
def test_connected_keeps_the_first_of_each_component(captions: list[str], threshold: float) -> None:
    cut, n = Cut("char", (2,)), len(captions)
    root = list(range(n))
    for _ in range(n):
        for one in range(n):
            for other in range(n):
                if near(captions[one], captions[other], cut) >= threshold:
                    root[one] = root[other] = min(root[one], root[other])
    expected = {f"{at:04d}": f"{root[at]:04d}" for at in range(n) if root[at] != at}
    verdict = judge(table(list(captions)), 3, groups="connected", sizes=(2,), threshold=threshold, **EVERY)
    found = fates(verdict)
    assert {uid: of for uid, (of, _) in found.items()} == expected
    assert all(
        similarity == near(captions[int(uid)], captions[int(of)], cut) for uid, (of, similarity) in found.items()
    )


def test_the_preferred_row_survives_even_among_equals() -> None:
    rows = table(["Two cats", "two  cats", "TWO CATS", "a dog"], [0.1, None, 0.9, 0.5])
    assert fates(judge(rows, prefer="score")) == {"0000": ("0002", 1.0), "0001": ("0002", 1.0)}
    assert fates(judge(rows)) == {"0001": ("0000", 1.0), "0002": ("0000", 1.0)}


def test_rows_without_a_caption_stay_and_short_ones_are_themselves() -> None:
    rows = table([None, "", "  ", "\u200b", "\n", "a", "b", "a", "ab", "\u732b", "\U0001f431"])
    for ngrams, sizes in (("char", (4,)), ("word", (2,))):
        verdict = judge(rows, ngrams=ngrams, sizes=sizes, threshold=0.3, recall=0.9, permutations=256)
        assert fates(verdict) == {"0007": ("0005", 1.0)}
        assert verdict.evidence["without_text"] == 5
    assert fates(judge(table([]))) == {}
    assert fates(judge(table([None, None]))) == {}


def pool(n: int = 600) -> pl.DataFrame:
    """Captions of random words; two thirds are copies of others with a word more, or another one, or twice."""
    noise = np.random.Generator(np.random.Philox(11))
    words = [f"{chr(97 + at % 26)}{at:03d}word" for at in range(400)]
    captions: list[str | None] = []
    for at in range(n):
        base = str(captions[int(noise.integers(at))]).split() if at % 3 and at else list(noise.choice(words, 9))
        base.insert(int(noise.integers(len(base))), str(noise.choice(words)))
        captions.append(" ".join(base if at % 5 else base[:-1]))
    return table(captions, noise.integers(0, 3, n).tolist())


def backwards(function: Any, pieces: Any, /) -> list[Any]:
    """A mapper that does the last piece first."""
    return [function(piece) for piece in reversed(list(pieces))][::-1]


@pytest.mark.parametrize("groups", ["witness", "connected"])
@pytest.mark.parametrize("number", [2, 7])
def test_parts_and_pieces_do_not_show(groups: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pool()
    settings: dict[str, Any] = {"groups": groups, "prefer": "score", "threshold": 0.7}
    whole = judge(rows, **settings)
    assert 150 < len(whole.dropped) <= 400
    monkeypatch.setattr(banding, "BLOCK_PAIRS", 7)
    monkeypatch.setattr(witnessing, "BLOCK_PAIRS", 5)
    monkeypatch.setattr(witnessing, "AT_ONCE", 16)
    monkeypatch.setattr(witnessing, "PER_TEXT", 0)
    monkeypatch.setattr(sketching, "BLOCK_ROWS", 11)
    cut = judge(rows, number, backwards, **settings)
    assert cut.dropped.equals(whole.dropped)
    assert cut.evidence == whole.evidence


def test_ray_and_one_process_agree(ray_cluster: object) -> None:
    rows = pool(200)
    with Cluster(workers=2) as cluster:
        spread = judge(rows, 7, on_cluster(cluster), threshold=0.7)
    alone = judge(rows, threshold=0.7)
    assert spread.dropped.equals(alone.dropped) and spread.evidence == alone.evidence


def test_new_rows_are_judged_against_old_ones_as_if_all_came_at_once() -> None:
    rows = pool()
    grown = judge(rows, 2)
    first = judge(rows.head(400))
    kept = fates(first)
    assert {uid: fate for uid, fate in fates(grown).items() if uid < "0400"} == kept
    assert any(uid >= "0400" > of for uid, (of, _) in fates(grown).items())


@pytest.mark.parametrize("strangers", [0, 8_000])
def test_a_crowd_of_near_copies_costs_about_one_comparison_each(
    strangers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands in the order: first, or behind as many captions that are like nothing."""
    n, compared = 8_000, [0]
    honest = witnessing.verified

    def counting(piece: Any, how: Any) -> Any:
        compared[0] += len(piece.first)
        return honest(piece, how)

    monkeypatch.setattr(witnessing, "verified", counting)
    beginning = "the very same long description of a thing that is for sale in this shop of ours, article number"
    noise = np.random.Generator(np.random.Philox(3))
    others = ["".join(map(chr, noise.integers(0x4E00, 0x9000, 30))) for _ in range(strangers)]
    verdict = judge(table([*others, *(f"{beginning} {at}" for at in range(n))]))
    assert len(verdict.dropped) > 0.99 * n
    assert compared[0] < 6 * n


@pytest.mark.parametrize("compat", ["affine32", "legacy"])
def test_compat_decides_as_well(compat: str) -> None:
    assert fates(judge(table(CHAIN), compat=compat, **WORDS)) == {"0001": ("0000", 7 / 9)}


def test_evidence_tells_who_went_for_whom() -> None:
    evidence = judge(table(["a b c d e f g h", "a b c d e f g h i", "A b c d e f g h"]), **WORDS).evidence
    assert evidence["similarities"] == {"0.85": 1, "1.00": 1}
    (group,) = evidence["largest_groups"]
    assert group == {"kept": "0000", "dropped": 2, "similarities": {"0001": 8 / 9, "0002": 1.0}}
    assert evidence["expected_recall_at_threshold"] >= 0.95
    assert evidence["distinct_texts"] == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"recall": 1},
        {"sizes": ()},
        {"sizes": (0,)},
        {"ngrams": "byte"},
        {"compat": "affine64"},
        {"prefer": "caption"},
        {"column": "words"},
        {"groups": "all"},
        {"threshold": 0.3, "recall": 0.999, "permutations": 16},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MinHashCaptions.model_validate({"kind": "minhash_captions", **settings})


def test_wrong_columns_are_refused() -> None:
    with pytest.raises(RecipeError, match="not text"):
        judge(table(["a"]).rename({"score": "other", "caption": "score"}).rename({"other": "caption"}))
    with pytest.raises(RecipeError, match="not numbers"):
        judge(table(["a"]), prefer="source")
