"""What every stage promises, held against every stage there is; `python tests/stages/test_contract.py` pins outputs."""

import io
import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from schemas.columns import COLUMNS, PROVIDED, bounds
from schemas.errors import ContractError
from stages.alignment.heads.weights import Head, write_head
from stages.kinds import kinds
from stages.stage import Scorer, Stage
from tests.stages.raters.tiny_mllm import made

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "tiny": ROOT.parent / "shared/models/tiny-dual-encoder",
    "demo": ROOT / "pipeline/demo/models/encoder",
}
RATER = {"kind": "transformers", "model": "made:llava", "least_mass": 0.0, "device": "cpu"}
MADE: dict[str, dict[str, Any]] = {
    "mlm_filter": {"backend": RATER},
    "rater": {"backend": RATER, "rubric": "dataman"},
    "caption_likelihood": {"captioner": {"kind": "transformers", "model": "made:llava", "device": "cpu"}},
    "loss_difference": {"reference": "made:words", "teacher": "made:other_words"},
}
"""Settings of stages whose models are made here, small and untrained: `made:` names a folder of `tiny_mllm`."""
GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 2e-3
"""Between a row alone and in a batch, for floats: other matrix shapes give other last bits, float16 shows them."""
BROKEN_ROWS = {
    ("image", "truncated"): 5,
    ("image", "garbage"): 6,
    ("image", "missing"): 7,
    ("image", "empty"): 8,
    ("caption", "missing"): 9,
    ("caption", "blank"): 10,
    ("image_embedding", "missing"): 7,
    ("text_embedding", "missing"): 9,
}
WIDTH = 8
"""Of embeddings for stages that bring no model of their own."""
FILES = tempfile.TemporaryDirectory()


def head_file(*widths: int) -> str:
    """A head of layers from one width to the next, with fixed weights; returns its path."""
    noise = np.random.Generator(np.random.Philox(3))
    parts = [(noise.normal(size=(out, into)), noise.normal(size=out)) for into, out in pairwise(widths)]
    file = Path(FILES.name) / f"{'-'.join(map(str, widths))}.safetensors"
    write_head(Head(tuple(parts), ("relu",) * (len(parts) - 1)), file)
    return str(file)


NEEDED: dict[str, dict[str, Any]] = {
    "linear_head": {"column": "aesthetic_score", "weights": head_file(WIDTH, 1)},
    "concepts": {"concepts": ("ball", "dog", "something_else")},
    "mlp_head": {"column": "nsfw_probability", "weights": head_file(WIDTH, 6, 1), "activation": "sigmoid"},
}
"""Settings without which a kind cannot be made, beside a model."""


def cases() -> list[Any]:
    """(kind, settings) of every stage in the project; each that needs a model once per model."""
    found = []
    for kind, stage in kinds(Stage).items():
        if not stage.__module__.startswith("stages."):
            continue
        if kind in MADE:
            found.append(pytest.param(kind, MADE[kind], id=kind))
            continue
        if "model" not in stage.model_fields:
            found.append(pytest.param(kind, NEEDED.get(kind, {}), id=kind))
            continue
        for name, folder in MODELS.items():
            missing = pytest.mark.skipif(not folder.is_dir(), reason=f"the {name} model is not here")
            settings = {"model": str(folder), **NEEDED.get(kind, {})}
            found.append(pytest.param(kind, settings, id=f"{kind}-{name}", marks=missing))
    return found


def png(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def samples(width: int = WIDTH) -> dict[str, list[Any]]:
    """Sound rows of several modes and languages, then one row per thing that can be wrong."""
    noise = np.random.Generator(np.random.Philox(11))
    colour = noise.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    images: list[bytes | None] = [
        png(colour),
        png(colour[:, ::-1]),
        png(colour[..., 0]),
        png(np.dstack([colour, colour[..., :1]])),
        png(np.full((40, 40, 3), 128, np.uint8)),
        png(colour)[:-20],
        b"this is not an image",
        None,
        b"",
        png(colour[::-1]),
        png(colour),
    ]
    captions = ["a red ball on the grass", "ein roter Ball", "東京タワー", "A RED  Ball", "12345"]
    captions += ["a dog", "a dog", "a cat", "a cat", None, " \t"]
    clip = {name: embeddings(len(images), width, BROKEN_ROWS[name, "missing"]) for name in EMBEDDINGS}
    return {
        **clip,
        "clip_score": [None if row in (5, 6, 7, 8, 9) else 0.25 for row in range(len(images))],
        "image": images,
        "caption": captions,
        "key": [f"k{row}" for row in range(len(images))],
        "image_hash": [f"{row:032x}" for row in range(len(images))],
        "content_hash": [f"{row:032x}" for row in range(len(images))],
    }


EMBEDDINGS = ("image_embedding", "text_embedding")


def embeddings(rows: int, width: int, missing: int) -> list[Any]:
    """Directions of norm 1 that no model made, one of them missing."""
    noise = np.random.Generator(np.random.Philox(width + missing)).normal(size=(rows, width))
    found = list((noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16))
    return [None if row == missing else vector for row, vector in enumerate(found)]


def batch(stage: Stage, rows: list[int] | None = None) -> pa.RecordBatch:
    """The samples' rows as the stage reads them."""
    columns = samples(next(iter(stage.widths().values()), WIDTH))
    chosen = range(len(columns["key"])) if rows is None else rows
    arrays = [pa.array([columns[field.name][row] for row in chosen], field.type) for field in stage.reads]
    return pa.record_batch(arrays, pa.schema(stage.reads))


Opened = tuple[Stage, Scorer, pa.RecordBatch]


@pytest.fixture(scope="module")
def opened() -> Callable[[str, dict[str, Any]], Opened]:
    """Opens a stage once and scores the samples with it."""
    known: dict[tuple[str, str], Opened] = {}

    def open_once(kind: str, settings: dict[str, Any]) -> Opened:
        name = (kind, json.dumps(settings))
        if name not in known:
            stage = kinds(Stage)[kind](kind=kind, **with_models(settings))
            scorer = stage.open()
            known[name] = (stage, scorer, scorer(batch(stage)))
        return known[name]

    return open_once


def with_models(settings: Any) -> Any:
    """The settings with folders for the models that are made."""
    if isinstance(settings, dict):
        return {name: with_models(value) for name, value in settings.items()}
    named = isinstance(settings, str) and settings.startswith("made:")
    return str(made(settings.removeprefix("made:"))) if named else settings


def assert_close(found: Any, expected: Any) -> None:
    """Equal, floats within TOLERANCE."""
    if isinstance(expected, (float, list)):
        assert found == pytest.approx(expected, abs=TOLERANCE)
    else:
        assert found == expected


def test_the_stages_of_the_project_are_found() -> None:
    assert {"image_header", "caption_text", "perceptual_hash", "clip"} <= {case.values[0] for case in cases()}


@pytest.mark.parametrize(("kind", "settings"), cases())
class TestContract:
    def test_columns_are_declared(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, _, _ = opened(kind, settings)
        for field in (*stage.reads, *stage.writes):
            assert COLUMNS.get(field.name, field).equals(field, check_metadata=True)
            assert field.name in COLUMNS or field.name.startswith(getattr(stage, "column", " "))
        assert not set(stage.writes) & set(PROVIDED)
        assert stage.version >= 1 and stage.batch_rows >= 1

    def test_schema_and_rows(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, _, scores = opened(kind, settings)
        scores.validate(full=True)
        assert scores.schema.equals(stage.returns())
        assert scores.num_rows == len(samples()["key"])

    def test_empty_batch(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, scorer, _ = opened(kind, settings)
        scores = scorer(batch(stage, []))
        assert scores.num_rows == 0 and scores.schema.equals(stage.returns())

    def test_nothing_but_nulls(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, scorer, _ = opened(kind, settings)
        inputs = pa.record_batch([pa.nulls(3, field.type) for field in stage.reads], pa.schema(stage.reads))
        scores = scorer(inputs)
        assert scores[stage.reason_column().name].null_count == 0
        assert all(scores[field.name].null_count == 3 for field in stage.writes)

    def test_what_is_wrong_has_a_reason_and_what_is_sound_has_none(
        self, kind: str, settings: dict[str, Any], opened: Any
    ) -> None:
        stage, _, scores = opened(kind, settings)
        reads = {field.name for field in stage.reads}
        wrong = {row for (column, _), row in BROKEN_ROWS.items() if column in reads}
        reasons = scores[stage.reason_column().name].to_pylist()
        assert {row for row, reason in enumerate(reasons) if reason is not None} == wrong
        assert all(reason.isidentifier() for reason in reasons if reason)
        sound = [row for row, reason in enumerate(reasons) if reason is None]
        for field in stage.writes:
            assert scores[field.name].take(pa.array(sound)).null_count == 0

    def test_values_are_finite_and_within_bounds(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, _, scores = opened(kind, settings)
        for field in stage.writes:
            column = scores[field.name]
            values = column.flatten() if pa.types.is_list(field.type) else column
            if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
                numbers = values.drop_null().to_numpy(zero_copy_only=False).astype(float)
                low, high = bounds(field)
                assert np.isfinite(numbers).all()
                assert (low is None or (numbers >= low).all()) and (high is None or (numbers <= high).all())

    def test_again_gives_the_same_bytes(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, scorer, scores = opened(kind, settings)
        assert scorer(batch(stage)).equals(scores)
        assert type(stage)(**stage.model_dump()).open()(batch(stage)).equals(scores)

    def test_rows_stand_alone(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        """Alone, in another order, with other neighbours: the same value for the same row."""
        stage, scorer, scores = opened(kind, settings)
        rows = list(range(scores.num_rows))
        for part in ([rows[::-1]], [rows[:4], rows[4:]], [[row] for row in rows]):
            for chosen in part:
                found = scorer(batch(stage, chosen)).to_pylist()
                expected = scores.take(pa.array(chosen)).to_pylist()
                for line, wanted in zip(found, expected, strict=True):
                    for name in wanted:
                        assert_close(line[name], wanted[name])

    def test_a_view_into_a_larger_batch(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        """Slices carry an Arrow offset, which a stage must respect."""
        stage, scorer, _ = opened(kind, settings)
        assert scorer(batch(stage).slice(2, 5)).equals(scorer(batch(stage, [2, 3, 4, 5, 6])))

    def test_settings_are_strict_and_addressed(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, _, _ = opened(kind, settings)
        stage.check()
        assert json.loads(json.dumps(stage.identity(), allow_nan=False)) == stage.identity()
        assert str(ROOT.parent) not in json.dumps(stage.identity())
        assert {"kind", "optional"}.isdisjoint(stage.identity())
        with pytest.raises(ValidationError):
            type(stage)(**settings, no_such_setting=1)

    def test_outputs_change_only_with_the_version(self, kind: str, settings: dict[str, Any], opened: Any) -> None:
        stage, _, scores = opened(kind, settings)
        pinned = json.loads(GOLDEN.read_text()).get(golden_name(stage))
        if pinned is None and ("model" in settings or kind in MADE):
            pytest.skip("no outputs are pinned for this model's weights; pin them by running this file")
        assert pinned is not None, f"pin the outputs of {kind}: python {Path(__file__).relative_to(ROOT)}"
        hint = f"outputs of {kind} changed: raise its `version`, then pin them by running this file"
        assert pinned["version"] == stage.version, hint
        for found, wanted in zip(shortened(scores), pinned["rows"], strict=True):
            for name in wanted:
                assert_close(found[name], wanted[name])


def golden_name(stage: Stage) -> str:
    """Kind, and for a model the beginning of its weights' digest."""
    identity: dict[str, Any] = stage.identity()
    parts = [identity, *(part for part in identity.values() if isinstance(part, dict))]
    weights = next((part["weights"] for part in parts if "weights" in part), None)
    return f"{stage.kind}-{str(weights)[:12]}" if weights else stage.kind


def shortened(scores: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows, lists cut to their first 8 values."""
    rows: list[dict[str, Any]] = scores.to_pylist()
    return [{name: v[:8] if isinstance(v, list) else v for name, v in row.items()} for row in rows]


@pytest.mark.parametrize("wrong", [[1.5], [1.5, float("nan")], [1.5, float("inf")], [1.5, 0.5]])
def test_a_broken_promise_is_caught_at_the_edge(wrong: list[float]) -> None:
    """A row too few, NaN, infinity, a value out of range: the engine's own check, which sees every batch."""
    from pipeline.worker import check_batch
    from stages.quality.image_header import ImageHeader

    def returned(ratios: list[float]) -> pa.RecordBatch:
        schema = ImageHeader().returns()
        columns = [
            pa.array(ratios, f.type) if f.name == "aspect_ratio" else pa.nulls(len(ratios), f.type) for f in schema
        ]
        return pa.record_batch(columns, schema)

    assert check_batch(ImageHeader(), returned([1.5, 1.0]), 2, "shard").num_rows == 2
    with pytest.raises(ContractError, match="image_header"):
        check_batch(ImageHeader(), returned(wrong), 2, "shard")


def pin_outputs() -> None:
    """Write what the stages return now."""
    pinned: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for case in cases():
        kind, settings = case.values
        if "model" in settings and not Path(settings["model"]).is_dir():
            continue
        stage = kinds(Stage)[kind](kind=kind, **with_models(settings))
        rows = shortened(stage.open()(batch(stage)))
        pinned[golden_name(stage)] = {"version": stage.version, "rows": rows}
    lines = [f"{json.dumps(name)}: {json.dumps(pinned[name], ensure_ascii=False)}" for name in sorted(pinned)]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    pin_outputs()
