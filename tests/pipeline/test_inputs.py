"""Every kind of input through a whole run on Ray: all kept, and exported as the bytes they had."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import Outcome, run
from tests.pools import picture, sample, write_tar

RECIPE = """name: inputs
workspace: ./work
pool:
  - {source: packed, shards: "packed/*.tar.zst"}
  - {source: saved, huggingface: saved, caption: text}
  - {source: listed, parquet: "listed/*.parquet", image: file, caption: title}
  - {source: folder, folder: folder, table: captions.jsonl}
score:
  - {kind: image_header}
  - {kind: caption_text}
export: {kind: webdataset, samples_per_shard: 9}
"""
ROWS = 7


@pytest.fixture
def project(tmp_path: Path) -> Path:
    home = tmp_path / "project"
    for shard in range(2):
        plain = tmp_path / "plain.tar"
        write_tar(plain, [sample(100 * shard + number) for number in range(ROWS)])
        (home / "packed").mkdir(parents=True, exist_ok=True)
        packed = zstandard.ZstdCompressor().compress(plain.read_bytes())
        (home / "packed" / f"{shard:05d}.tar.zst").write_bytes(packed)
    _save_arrow(home / "saved")
    _list_parquet(home / "listed")
    _fill_folder(home / "folder")
    (home / "recipe.yaml").write_text(RECIPE)
    return home / "recipe.yaml"


def _save_arrow(folder: Path) -> None:
    folder.mkdir(parents=True)
    cells = [{"bytes": picture(1000 + number), "path": f"{number}.jpg"} for number in range(ROWS - 1)]
    (folder / "loose.jpg").write_bytes(picture(1000 + ROWS - 1))
    cells.append({"bytes": None, "path": "loose.jpg"})
    texts = [f"a saved picture of thing {number}" for number in range(ROWS)]
    table = pa.table({"image": cells, "text": texts})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def _list_parquet(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for number in range(2 * ROWS):
        (folder / "images" / f"{number}.jpg").write_bytes(picture(2000 + number))
    for shard in range(2):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        titles = [f"a listed picture of thing {number}" for number in numbers]
        table = pa.table({"file": [f"images/{number}.jpg" for number in numbers], "title": titles})
        pq.write_table(table, folder / f"{shard:05d}.parquet")


def _fill_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = []
    for number in range(ROWS):
        (folder / f"{number}.jpg").write_bytes(picture(3000 + number))
        lines.append(json.dumps({"image": f"{number}.jpg", "caption": f"a picture in a folder of thing {number}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def expected() -> Iterator[tuple[str, bytes, str]]:
    """(source, image, caption) of everything that was written."""
    for number in [100 * shard + number for shard in range(2) for number in range(ROWS)]:
        parts = sample(number)
        yield "packed", parts["jpg"], parts["txt"].decode()
    for number in range(ROWS):
        yield "saved", picture(1000 + number), f"a saved picture of thing {number}"
        yield "folder", picture(3000 + number), f"a picture in a folder of thing {number}"
    for number in range(2 * ROWS):
        yield "listed", picture(2000 + number), f"a listed picture of thing {number}"


def done(recipe: Path, **options: Any) -> Outcome:
    with Cluster(workers=2) as cluster:
        return run(resolve(recipe), cluster, **options)


def exported(folder: Path) -> dict[str, dict[str, bytes]]:
    """Exported key -> suffix -> bytes, by the standard library."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = stream.read()
    return found


def computed(outcome: Outcome) -> dict[str, int]:
    return {line["kind"]: line["computed"] for line in outcome.record["stages"]}


def test_every_input_is_kept_and_exported_byte_for_byte(project: Path, ray_cluster: object) -> None:
    outcome = done(project)
    everything = sorted(expected())
    assert outcome.record["samples"] == {"in": len(everything), "kept": len(everything)}
    samples = exported(outcome.resolved.export_folder)
    listing = pl.read_parquet(outcome.resolved.export_folder / "members.parquet")
    found = [
        (line["source"], samples[line["exported_key"]]["jpg"], samples[line["exported_key"]]["txt"].decode())
        for line in listing.iter_rows(named=True)
    ]
    assert sorted(found) == everything
    numbers = [json.loads(parts["json"])["number"] for parts in samples.values() if b"number" in parts.get("json", b"")]
    assert sorted(numbers) == [*range(ROWS), *range(100, 100 + ROWS)]
    assert computed(done(project)) == {"index": 0, "image_header": 0, "caption_text": 0}


def test_what_moved_costs_no_score_and_what_changed_only_its_own(project: Path, ray_cluster: object) -> None:
    first = done(project)
    home = project.parent
    (home / "elsewhere").mkdir()
    for name in ("folder", "listed", "saved"):
        shutil.move(home / name, home / "elsewhere" / name)
    text = project.read_text()
    for name in ("folder: folder", "huggingface: saved", 'parquet: "listed'):
        kind, _, place = name.partition(": ")
        quote, place = ('"', place[1:]) if place.startswith('"') else ("", place)
        text = text.replace(name, f"{kind}: {quote}elsewhere/{place}")
    project.write_text(text)
    moved = done(project)
    assert computed(moved) == {"index": 0, "image_header": 0, "caption_text": 0}
    assert moved.manifest == first.manifest

    image = home / "elsewhere/listed/images/3.jpg"
    image.write_bytes(picture(9999))
    assert computed(done(project)) == {"index": 1, "image_header": 1, "caption_text": 1}
    (home / "elsewhere/folder/6.jpg").write_bytes(picture(9998)[::-1])
    changed = done(project)
    assert computed(changed) == {"index": 1, "image_header": 1, "caption_text": 1}
    assert {"quarantined": 1}.items() <= changed.record["samples"].items()


def test_an_equal_size_alone_is_no_move(project: Path, ray_cluster: object) -> None:
    done(project, until="score")
    shutil.move(project.parent / "folder", project.parent / "other")
    image = project.parent / "other/2.jpg"
    image.write_bytes(image.read_bytes()[::-1])
    project.write_text(project.read_text().replace("folder: folder", "folder: other"))
    assert computed(done(project, until="score")) == {"index": 1, "image_header": 1, "caption_text": 1}


def test_a_new_stage_reads_every_input_again(project: Path, ray_cluster: object) -> None:
    done(project, until="score")
    project.write_text(project.read_text().replace("export:", "  - {kind: perceptual_hash}\nexport:"))
    second = done(project, until="score")
    assert computed(second) == {"index": 0, "image_header": 0, "caption_text": 0, "perceptual_hash": 6}
    assert set(second.record["samples"]) == {"in", "kept"}


def test_what_img2dataset_could_not_fetch_is_a_note(make_pool: Any, ray_cluster: object) -> None:
    recipe = make_pool()
    rows = {"key": ["a", "b", "c"], "status": ["success", "failed_to_download", "failed_to_download"]}
    pq.write_table(pa.table(rows), recipe.parent / "pool/alpha/00001.parquet")
    outcome = done(recipe, until="score")
    (note,) = outcome.record["notes"]
    assert note.startswith("img2dataset: 2 of 3 URLs of source 'alpha' were not downloaded (2 failed_to_download)")


def test_a_bomb_is_one_row_and_the_run_goes_on(project: Path, ray_cluster: object) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("README"))
    bomb = zstandard.ZstdCompressor().compress(plain.getvalue() + bytes(300 << 20))
    (project.parent / "packed/00007.tar.zst").write_bytes(bomb)
    outcome = done(project, until="score")
    bad = outcome.ledger.filter(pl.col("status") == "quarantined").sort("row")
    assert bad["reason"].to_list() == ["not_a_sample", "inflation_bomb"]
