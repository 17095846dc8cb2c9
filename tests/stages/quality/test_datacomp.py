"""DataComp's basic filter and CLIP-score cut as our starter recipe has them, against the published functions.

The table has 500 rows that stand on both sides of every border. What it expects was worked out by `published_basic` and
`published_clip`, which say in plain Python what baselines/apply_filter.py and baselines/utils.py of
mlfoundations/datacomp do. `PYTHONPATH=. python tests/stages/quality/test_datacomp.py` writes it.
"""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from schemas.columns import IMAGE
from stages.kinds import kinds
from stages.quality.caption_text import CaptionText, facts
from stages.quality.image_header import ImageHeader
from stages.rule import Context, Rule

TABLE = Path(__file__).with_name("datacomp_500.jsonl")
STARTER = Path(__file__).resolve().parents[3] / "pipeline/starters/datacomp.yaml"
BASIC = ("language", "words", "characters", "min_side_px", "aspect_ratio")
FRACTION = 0.3
Row = dict[str, Any]


def published_basic(row: Row) -> bool:
    """English, words > 2 and characters > 5, shorter side >= 200, longer over shorter side <= 3."""
    if row["text"] is None or row["width"] is None:
        return False
    english = row["language"] == "en"
    text = len(row["text"].split()) > 2 and len(row["text"]) > 5
    shorter, longer = min(row["width"], row["height"]), max(row["width"], row["height"])
    return bool(english and text and shorter >= 200 and longer / shorter <= 3.0)


def published_clip(scores: list[float | None]) -> list[bool]:
    """Those at least as good as place int(n f) of the descending sort; of n rows those without a score come last."""
    all_rows = np.array([np.nan if score is None else score for score in scores], np.float32)
    threshold = -np.sort(-all_rows)[int(len(all_rows) * FRACTION)]
    return [score is not None and bool(np.float32(score) >= threshold) for score in scores]


def make_table() -> list[Row]:
    """Every combination of border cases, then odd texts and missing parts, then random rows up to 500."""
    noise = np.random.Generator(np.random.Philox(500))
    texts = ("ab cd", "abc de", "a b c", "a b cd")  # 2 or 3 words, 5 or 6 characters
    sizes = [(h, w) for h in (199, 200) for w in (3 * h - 1, 3 * h, 3 * h + 1)]
    cases = [(t, lang, size) for t in texts for lang in ("en", "de") for size in sizes]
    rows = [(text, lang, size[::turn]) for turn in (1, -1) for text, lang, size in cases]
    spaces = [" ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "\x1c", "\x85", "_", "-", ",", "\ufeff"]
    rows += [(f"red{one}ball{one}here", "en", (300, 300)) for one in spaces]
    rows += [(f"{one}a b cd{one}", "en", (300, 300)) for one in spaces]
    rows += [(f"a{one}b{one}c", "en", (300, 300)) for one in spaces]
    odd = ["", " ", "a b c ", " a b c", "👍 👍 👍", "👍🏽 👍 👍", "e\u0301 b c", "日本 の 写真", "日本の写真です", None]
    rows += [(text, "en", (300, 300)) for text in odd]
    rows += [("a red ball", language, (300, 300)) for language in ("EN", "eng", "und", "en-US", "fr", "nl")]
    rows += [("a red ball", "en", None)] * 3
    while len(rows) < 500:
        words = ["x" * int(noise.integers(1, 4)) for _ in range(int(noise.integers(1, 6)))]
        size = tuple(int(side) for side in noise.choice([150, 199, 200, 201, 300, 597, 600, 603, 604, 900], 2))
        rows.append((" ".join(words), "en" if noise.random() < 0.8 else "es", (size[0], size[1])))
    scores = [None if noise.random() < 0.03 else round(float(noise.normal(0.22, 0.06)), 2) for _ in rows]
    return [finish(*row, score) for row, score in zip(rows, scores, strict=True)]


def finish(text: str | None, language: str, size: tuple[int, ...] | None, score: float | None) -> Row:
    width, height = size if size else (None, None)
    return {"text": text, "language": language, "width": width, "height": height, "clip_score": score}


def table() -> list[Row]:
    return [json.loads(line) for line in TABLE.read_text().splitlines()]


def columns(rows: list[Row]) -> pl.DataFrame:
    """What our stages make of the rows; the language is the table's, since the published model cannot be had here."""
    texts = [facts(row["text"], lambda _, name=row["language"]: (name, 1.0)) for row in rows]  # type: ignore[misc]
    images = pa.record_batch([pa.array(map(picture, rows), IMAGE.type)], pa.schema([IMAGE]))
    header = ImageHeader(decode=False).open()(images)
    return pl.DataFrame(
        {
            "uid": [f"{number:03d}" for number in range(len(rows))],
            "source": ["web"] * len(rows),
            "language": [fact.language for fact in texts],
            "words": pl.Series([fact.words for fact in texts], dtype=pl.Int32),
            "characters": pl.Series([fact.characters for fact in texts], dtype=pl.Int32),
            "min_side_px": pl.Series(header["min_side_px"].to_pylist(), dtype=pl.Int32),
            "aspect_ratio": pl.Series(header["aspect_ratio"].to_pylist(), dtype=pl.Float32),
            "clip_score": pl.Series([row["clip_score"] for row in rows], dtype=pl.Float32),
        }
    )


def picture(row: Row) -> bytes | None:
    if row["width"] is None:
        return None
    buffer = io.BytesIO()
    Image.new("1", (row["width"], row["height"])).save(buffer, "PNG")
    return buffer.getvalue()


def rules(**changed: object) -> list[Rule]:
    """The starter's rules on the basic filter's columns and on the CLIP score; `changed` replaces a column's value."""
    known = kinds(Rule)
    steps = [dict(step) for step in yaml.safe_load(STARTER.read_text())["select"]]
    for step in steps:
        if step.get("column") in changed:
            step["values" if step["kind"] == "one_of" else "value"] = changed[step["column"]]
    return [known[step["kind"]].model_validate(step) for step in steps if "column" in step]


def kept(frame: pl.DataFrame, steps: list[Rule]) -> list[bool]:
    """Row by row, whether no rule drops it; the rules judge one after the other, as in a run."""
    left = frame
    for rule in steps:
        left = left.join(rule.judge(left.lazy(), Context(0)).dropped, on="uid", how="anti")
    return frame["uid"].is_in(left["uid"].to_list()).to_list()


def basic(steps: list[Rule]) -> list[Rule]:
    return [rule for rule in steps if rule.columns()[0] in BASIC]


def test_the_table_is_what_the_published_functions_say() -> None:
    rows = table()
    assert len(rows) == 500
    assert [row["basic"] for row in rows] == [published_basic(row) for row in rows]
    assert [row["clip"] for row in rows] == published_clip([row["clip_score"] for row in rows])
    assert 50 < sum(row["basic"] for row in rows) < 450


def test_the_starter_s_basic_filter_decides_row_by_row_as_published() -> None:
    rows = table()
    assert [rule.columns()[0] for rule in basic(rules())] == list(BASIC)
    assert kept(columns(rows), basic(rules())) == [row["basic"] for row in rows]


def test_the_starter_s_clip_score_cut_keeps_what_was_published() -> None:
    rows = table()
    cut = [rule for rule in rules() if rule.columns() == ("clip_score",)]
    assert [rule.kind for rule in cut] == ["top_fraction"]
    assert kept(columns(rows), cut) == [row["clip"] for row in rows]
    scores = [row["clip_score"] for row in rows if row["clip_score"] is not None]
    border = sorted(scores, reverse=True)[int(len(rows) * FRACTION)]
    assert scores.count(border) > 1, "the border is a tie"
    together = [row["basic"] and row["clip"] for row in rows]
    assert kept(columns(rows), rules()) == together, "the cut is over the whole pool, so the two just intersect"


@pytest.mark.parametrize(
    "moved",
    [
        {"language": ["de"]},
        {"words": 2},
        {"words": 4},
        {"characters": 5},
        {"characters": 7},
        {"min_side_px": 199},
        {"min_side_px": 201},
        {"aspect_ratio": 2.999},
        {"aspect_ratio": 3.006},
    ],
)
def test_the_table_notices_every_border(moved: dict[str, Any]) -> None:
    rows = table()
    expected = [row["basic"] for row in rows]
    assert kept(columns(rows), basic(rules(**moved))) != expected


def test_an_aspect_of_three_is_exact_for_every_image_that_is_opened() -> None:
    """The column is float32, whose step at 3 is 2.4e-7; sides end at 2^20, so the next ratio is 2.9e-6 away."""
    sides = np.arange(1, 2**20 // 3 + 1, dtype=np.float64)
    above, exact = (3 * sides + 1) / sides, (3 * sides) / sides
    assert (above.astype(np.float32) > np.float32(3)).all()
    assert (exact.astype(np.float32) == np.float32(3)).all()


def test_the_starter_s_languages_are_known() -> None:
    steps = {step["kind"]: step for step in yaml.safe_load(STARTER.read_text())["score"]}
    stage = CaptionText.model_validate(steps["caption_text"])
    stage.check()
    assert "en" in stage.languages


def test_rows_with_a_missing_part_are_named() -> None:
    frame = columns(table())
    verdicts = pl.concat([rule.judge(frame.lazy(), Context(0)).dropped for rule in basic(rules())])
    reasons = set(verdicts["reason"])
    wanted = [
        ("other_language",),
        ("below_words",),
        ("below_characters",),
        ("below_min_side_px",),
        ("above_aspect_ratio",),
    ]
    assert reasons == set(itertools.chain(*wanted)) | {f"{column}_missing" for column in BASIC}


if __name__ == "__main__":
    made = make_table()
    clip = published_clip([row["clip_score"] for row in made])
    lines = [
        json.dumps({**row, "basic": published_basic(row), "clip": good}) for row, good in zip(made, clip, strict=True)
    ]
    TABLE.write_text("\n".join(lines) + "\n")
