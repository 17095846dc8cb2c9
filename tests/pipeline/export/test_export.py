"""What holds for every format: the same bytes again, whole folders, and the connector's arms."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipeline import proof
from pipeline.cluster import Cluster
from pipeline.export import energon
from pipeline.export.export import FORMATS
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.sidecars import read_json
from stages.train.samples import read_pairs


def tree(folder: Path) -> dict[str, str]:
    """relative path -> SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", FORMATS)
def test_written_again_it_is_the_same_bytes(exported: Callable[..., Path], kind: str) -> None:
    folder = exported(kind, True)
    before = tree(folder)
    manifest = read_json(folder / "manifest.json")
    assert {shard["url"]: shard["sha256"] for shard in manifest["shards"]}.items() <= before.items()
    assert not [name for name in before if Path(name).name.startswith((".writing", ".spool", "plan", "drawn"))]
    assert not [name for name in before if name.endswith(".parts")]
    shutil.rmtree(folder)
    with Cluster(workers=1) as cluster:
        run(resolve(folder.parents[2] / f"{folder.name}.yaml"), cluster)
    assert tree(folder) == before


def test_energon_finishes_what_was_killed_while_clearing_away(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported("energon")
    before = tree(folder)
    shutil.rmtree(folder)
    recipe = folder.parents[2] / "energon.yaml"
    cleared: list[Path] = []

    def killed(shard: Path) -> Path:
        path = original(shard)
        if path.exists() and shard.name.startswith("00001") and (shard.parent / ".nv-meta" / "index.uuid").exists():
            raise KeyboardInterrupt
        cleared.append(path)
        return path

    original = energon._parts_path
    monkeypatch.setattr(energon, "_parts_path", killed)
    with pytest.raises(KeyboardInterrupt), Cluster(workers=2) as cluster:
        run(resolve(recipe), cluster)
    monkeypatch.undo()
    assert cleared and not folder.exists()
    with Cluster(workers=2) as cluster:
        run(resolve(recipe), cluster)
    assert tree(folder) == before


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("kind", ["energon", "parquet"])
def test_the_connector_is_trained_on_the_train_part(
    make_pool: Callable[..., Path], ray_cluster: object, monkeypatch: pytest.MonkeyPatch, kind: str, split: bool
) -> None:
    """Only which samples each arm gets; the training itself has tests of its own."""
    parts = ", split: {train: 0.6, holdout: 0.4}" if split else ""
    extra = f"export: {{kind: {kind}, samples: 30, samples_per_shard: 7{parts}}}\ntrain: {{vision: image_header}}\n"
    recipe = make_pool(extra=extra)
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, until="export")
        arms: dict[str, Any] = {}

        def compare(_settings: Any, given: list[Any], *_: Any, **__: Any) -> dict[str, Any]:
            arms.update({arm.name: arm for arm in given})
            return {"arms": {}}

        monkeypatch.setattr(proof, "compare", compare)
        made = SimpleNamespace(identity=lambda: "settings", schedule=None, replay=None, text_only=None, columns=())
        made.sized = lambda _: made
        monkeypatch.setattr(proof, "settings", lambda _: made)
        evidence = proof.Evidence(outcome.chosen, outcome.resolved.export_folder, outcome.manifest or {})
        proof.prove(evidence, cluster)
    assert list(arms) == ["raw", "random", "curated"]
    read = {name: arm.pairs() if arm.pairs else read_pairs(arm.shards) for name, arm in arms.items()}
    keys = {name: [pair.key for pair in pairs] for name, pairs in read.items()}
    assert {name for name, arm in arms.items() if arm.pairs} >= {"raw", "random"}, "no tar is written for these"
    members = pl.read_parquet(outcome.resolved.export_folder / "members.parquet")
    trained = members.filter(pl.col("exported_shard").str.contains("train/" if split else ""))
    assert sorted(keys["curated"]) == sorted(trained["exported_key"])
    assert len(trained) > 0 and (len(trained) < 30) == split
    assert len(keys["random"]) == trained["uid"].n_unique()
    assert set(keys["random"]) < set(keys["raw"])
