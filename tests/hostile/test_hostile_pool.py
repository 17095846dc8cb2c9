"""Everything that can be wrong with a pool, in one run on Ray: each has its ledger line, and what is kept its bytes."""

import json
import os
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.cluster import Cluster
from pipeline.explain import story, story_text
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from tests.hostile import cases, images
from tests.hostile.cases import Shard

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {
    "name": "hostile",
    "workspace": "./work",
    "pool": [
        {"source": "web", "shards": "pool/*.tar"},
        {"source": "jsonl", "folder": "photos", "table": "lines.jsonl"},
        {"source": "csv", "folder": "photos", "table": "lines.csv"},
        {"source": "parquet", "parquet": "lines.parquet"},
    ],
    "score": [
        {"kind": "image_header"},
        {"kind": "caption_text"},
        {"kind": "perceptual_hash"},
        {"kind": "clip", "model": str(ROOT / "pipeline/demo/models/encoder"), "device": "cpu"},
    ],
    "select": [
        {"kind": "at_most", "column": "caption_control_chars", "value": 0},
        {"kind": "at_most", "column": "caption_bidi_controls", "value": 0},
        {"kind": "at_most", "column": "caption_markup", "value": 0},
    ],
    "export": {"kind": "webdataset", "samples_per_shard": 50},
}


class Run:
    """The one run that all tests look at."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.shards: dict[str, Shard] = cases.write(home / "pool")
        (home / "secret.jpg").write_bytes(images.jpeg(0))
        cases.write_tables(home)
        (home / "recipe.yaml").write_text(json.dumps(RECIPE))
        self.before = tree(home)
        with Cluster(workers=2) as cluster:
            self.outcome: Outcome = run(resolve(home / "recipe.yaml"), cluster)
        finish(self.outcome)
        self.ledger = self.outcome.ledger.with_columns(pl.col("shard").str.split("/").list.last())

    def lines(self, shard: str) -> pl.DataFrame:
        return self.ledger.filter(pl.col("shard") == shard).sort("row", nulls_last=True)

    def scores(self, column: str) -> dict[tuple[str, str], Any]:
        """(shard, key) -> value."""
        table = self.outcome.chosen.table
        found = table.scores("pool", [column]).collect().join(table.samples.select("uid", "shard", "key"), on="uid")
        rows = found.select("shard", "key", column).iter_rows()
        return {(os.path.basename(shard), key): value for shard, key, value in rows}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder, links not followed, with size and time."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            facts = os.lstat(os.path.join(place, name))
            found[os.path.relpath(os.path.join(place, name), folder)] = (facts.st_size, facts.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def done(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("hostile"))


def test_every_sample_has_its_line_and_every_line_its_reason(done: Run) -> None:
    assert set(done.ledger.filter(pl.col("source") == "web")["shard"]) == set(done.shards)
    for name, shard in done.shards.items():
        found = done.lines(name).select("key", "status", "decided_by", "reason").rows()
        assert found == [(key, *fate) for key, fate in shard.fates], name
    assert done.ledger["uid"].drop_nulls().is_unique().all()


def test_what_is_kept_is_exported_byte_for_byte(done: Run) -> None:
    exported: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path in sorted(done.outcome.resolved.export_folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                assert member.isreg() and suffix not in exported[key], member.name
                exported[key][suffix] = archive.extractfile(member).read()  # type: ignore[union-attr]
    expected = {}
    for name, shard in done.shards.items():
        kept = done.lines(name).filter(pl.col("status") == "kept")["uid"]
        expected |= dict(zip(kept, shard.members, strict=True))
    assert {key: exported.pop(key) for key in expected} == expected
    tables = done.ledger.filter((pl.col("source") != "web") & (pl.col("status") == "kept"))
    assert set(exported) == set(tables["uid"])
    for uid, key in tables.select("uid", "key").iter_rows():
        assert exported[uid]["jpg"] == images.jpeg(0) and exported[uid]["txt"] == key.encode()
        assert json.loads(exported[uid]["json"]) == {"key": key, "note": key}


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.csv", "lines.parquet"])
def test_every_line_of_a_table_has_its_line(done: Run, name: str) -> None:
    lines = [
        (line, fate) for line, fate in cases.table_lines() if "parquet" not in name or line["image"] == "plain.jpg"
    ]
    found = done.lines(name).select("key", "status", "decided_by", "reason").rows()
    assert found == [(line["key"], *fate) for line, fate in lines]


def test_nothing_beside_the_workspace_is_written_or_read_through_a_link(done: Run) -> None:
    after = tree(done.home)
    assert {path: facts for path, facts in after.items() if not path.startswith("work")} == done.before
    workspace = done.home / "work"
    secrets = (Path("/etc/passwd").read_bytes()[:60], b"\xff\xd8\xffsecret")
    for path in workspace.rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), path


def test_text_stays_text(done: Run) -> None:
    captions = done.scores("caption")
    for number, word in enumerate(cases.LOOKALIKES):
        assert captions["captions.tar", f"like_{number}"] == word
    assert captions["captions.tar", "mark"] == "two dogs \u00e9"
    assert done.scores("caption_control_chars")["captions.tar", "bell"] == 2


def test_odd_images_are_scored_as_they_are_shown(done: Run) -> None:
    from stages.duplicates.perceptual_hash.stage import PerceptualHash, grey_pixels, perceptual_hashes

    hashes, widths, heights = (done.scores(name) for name in ("phash", "width_px", "height_px"))
    assert PerceptualHash.version >= 2
    shown = {"rotated_png": 18, "palette_clear": 2, "grey16_png": 1, "grey16_tiff": 1, "png_in_jpg": 19}
    for name, number in shown.items():
        picture = images.photo(number)
        picture = picture.convert("L") if "grey" in name else picture
        if "palette" in name:
            picture = picture.convert("P", palette=1)
        expected = int(perceptual_hashes(grey_pixels(picture)[None])[0])
        assert hashes["images.tar", name] == expected, name
    for name in ("rotated", "rotated_png"):
        assert (widths["images.tar", name], heights["images.tar", name]) == (48, 36)
    assert (widths["images.tar", "thin"], heights["images.tar", "thin"]) == (1, 20_000)
    deviations = done.scores("grey_deviation")
    assert deviations["images.tar", "float_tiff"] > 10 and deviations["images.tar", "lab_tiff"] > 10
    assert all(value is not None for (shard, key), value in done.scores("clip_score").items() if shard == "no_end.tar")


def test_a_story_cannot_steer_the_terminal(done: Run) -> None:
    line = done.ledger.filter(pl.col("key") == "bell")
    text = story_text(story(done.outcome.folder, line["uid"][0]))
    assert "a\\x07 dog \\x1b[2J" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_second_run_computes_nothing_and_finds_the_same(done: Run) -> None:
    with Cluster(workers=2) as cluster:
        again = run(resolve(done.home / "recipe.yaml"), cluster)
    assert again.record["computed"] == 0 and again.record["reused"] == {"export": True}
    assert again.ledger.equals(done.outcome.ledger)
