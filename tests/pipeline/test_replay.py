import json
from pathlib import Path

import pytest

from pipeline.replay import replayed
from schemas.errors import RecipeError


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of two tars, one of them held out."""
    folder = tmp_path / "export"
    (folder / "train").mkdir(parents=True)
    shards = [{"url": f"{split}/00000.tar", "split": split} for split in ("train", "holdout")]
    (folder / "train" / "00000.tar").write_bytes(b"")
    (folder / "manifest.json").write_text(json.dumps({"kind": "webdataset", "shards": shards}))
    return folder


def test_tars_are_found_by_glob_and_by_manifest(export: Path, tmp_path: Path) -> None:
    tar = str(export / "train" / "00000.tar")
    given = {"shards": "export/train/*.tar", "share": 0.25}
    assert replayed(given, tmp_path) == {"share": 0.25, "shards": [tar]}
    assert replayed({**given, "shards": ["export/train/00000.tar"]}, tmp_path)["shards"] == [tar]
    assert replayed({"manifest": "export/manifest.json", "share": 0.1}, tmp_path)["shards"] == [tar]


def test_what_cannot_be_replayed_is_refused(export: Path, tmp_path: Path) -> None:
    def refused(said: str, **given: object) -> None:
        with pytest.raises(RecipeError, match=said):
            replayed({"share": 0.1, **given}, tmp_path)

    refused("one of `shards` and `manifest`")
    refused("one of `shards` and `manifest`", shards="a.tar", manifest="m")
    refused("found|does not exist|no", shards="export/none-*.tar")
    refused("file system that every worker sees", shards="s3://bucket/a.tar")
    refused(r"no export's manifest\.json", manifest="export/train/00000.tar")
    (export / "train" / "00000.tar").unlink()
    refused("is not there", manifest="export/manifest.json")
    (export / "manifest.json").write_text(json.dumps({"kind": "mds", "shards": [{"url": "0.mds", "split": ""}]}))
    refused(r"no tars \(mds\)", manifest="export/manifest.json")
