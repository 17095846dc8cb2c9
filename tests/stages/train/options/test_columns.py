"""What options ask of a sample comes from the export: KEY.cuvee.json, and members.parquet beside the tars."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import RecipeError
from stages.train.comparison import Comparison, Job
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench


def write_export(folder: Path, picture: Callable[..., bytes], scored: bool = True) -> str:
    """A tar as it is exported with `columns: [clip_score]`, and its members.parquet."""
    folder.mkdir()
    lines: list[tuple[str, bytes]] = []
    for n in range(12):
        values = {"clip_score": 0.2 + n / 100} if scored else {}
        lines.append((f"k{n:02d}.cuvee.json", json.dumps(values).encode()))
        lines += [(f"k{n:02d}.png", picture(n)), (f"k{n:02d}.txt", f"a {'red' if n % 2 else 'green'} star".encode())]
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for name, body in lines:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    keys = [f"k{n:02d}" for n in range(12)]
    table = pa.table({"exported_key": keys, "source": ["odd" if n % 2 else "even" for n in range(12)]})
    pq.write_table(table, folder / "members.parquet")
    return str(folder / "00000.tar")


def bench_of(tar: str, made: TrainSettings, held_out: pa.Table, folder: Path) -> Workbench:
    comparison = Comparison(made, {"curated": [tar]}, folder / "run", folder / "features", seed=1)
    comparison.read(held_out)
    return Workbench(comparison)


def test_from_tars_to_a_finished_connector(
    settings: Callable[..., TrainSettings], picture: Callable[..., bytes], held_out: pa.Table, tmp_path: Path
) -> None:
    made = settings(
        levels={"count": 3}, logit_correction={"form": "caption"}, token_weights="cal", average={"last": 2, "every": 2},
        seeds=1, budget={"steps": 3}, generated=2,
    )  # fmt: skip
    bench = bench_of(write_export(tmp_path / "export", picture), made, held_out, tmp_path)
    columns = bench.corpora["curated"].columns
    assert columns["clip_score"] == pytest.approx([0.2 + n / 100 for n in range(12)])
    assert columns["source"] == ("even", "odd") * 6
    assert bench.do(Job("curated", 0))["metrics"]["nll_per_token"] > 0
    assert len(list(bench.comparison.tokens_folder.glob("text-logits-*.npy"))) >= 1
    card = json.loads((tmp_path / "run" / "connectors" / "curated-0" / "connector.json").read_text())
    assert card["options"] == {"levels": {"count": 3}}


def test_an_export_without_scores_is_refused(
    settings: Callable[..., TrainSettings], picture: Callable[..., bytes], held_out: pa.Table, tmp_path: Path
) -> None:
    bench = bench_of(write_export(tmp_path / "export", picture, scored=False), settings(levels={}), held_out, tmp_path)
    with pytest.raises(RecipeError, match="clip_score of every training sample, but 12 of 12 have none"):
        bench.do(Job("curated", 0))
