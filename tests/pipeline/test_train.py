"""The comparison through Ray Train and in this process, on the models that ship with cuvee."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from pipeline.cluster import Cluster
from pipeline.train import Arm, compare
from schemas.errors import CuveeError, RecipeError
from stages.train.settings import TrainSettings

MODELS = Path(__file__).resolve().parents[2] / "pipeline" / "demo" / "models"
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square")


def scene(number: int) -> tuple[bytes, str]:
    """A picture of one coloured shape and a caption that says so."""
    noise = np.random.Generator(np.random.Philox(number))
    colour, shape = noise.choice(COLOURS), noise.choice(SHAPES)
    left, top, size = (int(noise.integers(4, 24)), int(noise.integers(4, 24)), int(noise.integers(20, 32)))
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    box = (left, top, left + size, top + size)
    (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=str(colour))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), f"a {colour} {shape}"


@pytest.fixture
def settings() -> Callable[..., TrainSettings]:
    if not (MODELS / "encoder").is_dir() or not (MODELS / "language_model").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")

    def make(**changed: Any) -> TrainSettings:
        given = {"vision_model": f"local-dir:{MODELS / 'encoder'}", "language_model": str(MODELS / "language_model")}
        small = {"budget": {"steps": 8}, "batch": 8, "seeds": 2, "learning_rate": 2e-3, "generated": 4}
        return TrainSettings.model_validate({**given, **small, **changed})

    return make


@pytest.fixture
def arms(tmp_path: Path) -> Callable[..., list[Arm]]:
    """`raw`: some captions belong to other pictures; `curated`: none does."""

    def make(count: int = 24) -> list[Arm]:
        sound = [(f"k{number:04d}", *scene(number)) for number in range(count)]
        mixed = [(key, image, scene(number + 999)[1]) for number, (key, image, _) in enumerate(sound)]
        half = [mixed[n] if n % 2 else sound[n] for n in range(count)]
        names = [key for key, *_ in sound]
        table = pa.table({"exported_key": names, "source": ["odd" if n % 2 else "even" for n in range(count)]})
        pq.write_table(table, tmp_path / "members.parquet")
        curated = Arm("curated", (write(tmp_path / "c.tar", sound),), str(tmp_path / "members.parquet"))
        return [Arm("raw", (write(tmp_path / "raw.tar", half),)), curated]

    def write(path: Path, rows: list[tuple[str, bytes, str]]) -> str:
        with tarfile.open(path, "w") as archive:
            for name, body in ((f"{k}.{s}", b) for k, i, c in rows for s, b in (("png", i), ("txt", c.encode()))):
                info = tarfile.TarInfo(name)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        return str(path)

    return make


@pytest.fixture
def held_out() -> pa.Table:
    rows = [(f"e{number}", *scene(10_000 + number)) for number in range(40)]
    keys, images, captions = zip(*rows, strict=True)
    return pa.table({"key": keys, "image": pa.array(images, pa.large_binary()), "caption": captions})


def told(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "speed", "workers")}


def test_ray_and_this_process_give_the_same_numbers_and_a_second_call_trains_nothing(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path,
    ray_cluster: object,
) -> None:  # fmt: skip
    steered = settings(schedule={"kind": "doge", "every": 2, "probe": 4})
    target = held_out.slice(0, 20)
    here = compare(steered, arms(), held_out, tmp_path / "here", seed=3, target=target)
    seen: list[tuple[str, int, int]] = []
    # Two jobs are done, as after a kill: the worker group does the other two.
    for name in ("raw-0", "curated-1"):
        (tmp_path / "ray" / "jobs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ray" / "jobs" / f"{name}.json").write_text(
            (tmp_path / "here" / "jobs" / f"{name}.json").read_text()
        )
    with Cluster() as cluster:
        there = compare(
            steered,
            arms(),
            held_out,
            tmp_path / "ray",
            seed=3,
            target=target,
            cluster=cluster,
            progress=lambda *at: seen.append(at),
        )
    assert told(there) == told(here)
    assert there["workers"] == 2 and seen[-1] == ("train", 4, 4)
    assert {job.name for job in (tmp_path / "ray" / "connectors").iterdir()} == {"raw-1", "curated-0"}
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "here" / "jobs").iterdir()}
    assert told(compare(steered, arms(), held_out, tmp_path / "here", seed=3, target=target)) == told(here)
    runs = here["arms"]["curated"]["runs"]
    assert [len(run["schedule"]["updates"]) for run in runs] == [4, 4]
    assert [sorted(run["schedule"]["drawn"]) for run in runs] == [["even", "odd"]] * 2
    assert all("schedule" not in run for run in here["arms"]["raw"]["runs"])
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert json.loads(json.dumps(here, allow_nan=False)) == here


@pytest.mark.slow
def test_two_workers_share_every_run(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path,
    ray_cluster: object,
) -> None:  # fmt: skip
    alone = compare(settings(seeds=1), arms(), held_out, tmp_path / "alone", seed=3)
    with Cluster() as cluster:
        shared = compare(
            settings(seeds=1, workers_per_run=2), arms(), held_out, tmp_path / "two", seed=3, cluster=cluster
        )
        told = settings(seeds=1, workers_per_run=2, features="online")
        online = compare(told, arms(), held_out, tmp_path / "online", seed=3, cluster=cluster)
    assert online["settings"] == shared["settings"]
    for name, arm in online["arms"].items():
        assert arm["runs"] == shared["arms"][name]["runs"], "each worker computes the tokens of its part"
    assert shared["workers"] == 2 and shared["settings"]["workers_per_run"] == 2
    for name in ("raw", "curated"):
        one, two = alone["arms"][name]["runs"][0], shared["arms"][name]["runs"][0]
        assert [loss for _, loss in two["curve"]] == pytest.approx([loss for _, loss in one["curve"]], rel=1e-5)
        assert two["metrics"]["nll_per_token"] == pytest.approx(one["metrics"]["nll_per_token"], rel=1e-4)
        for mine, theirs in zip(two["log"]["windows"], one["log"]["windows"], strict=True):
            assert mine["sources"][""]["samples"] == theirs["sources"][""]["samples"]
    with pytest.raises(CuveeError, match="this process is one"):
        compare(settings(workers_per_run=2), arms(), held_out, tmp_path / "here", seed=3)
    with Cluster() as cluster, pytest.raises(CuveeError, match="`workers_per_run` is 8, but the cluster has 2"):
        compare(settings(workers_per_run=8), arms(), held_out, tmp_path / "many", seed=3, cluster=cluster)


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_user(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path,
    ray_cluster: object,
) -> None:  # fmt: skip
    missing = [Arm("raw", (str(tmp_path / "missing.tar"),)), arms()[1]]
    with Cluster() as cluster, pytest.raises(CuveeError, match=r"shard .*missing\.tar cannot be read"):
        compare(settings(), missing, held_out, tmp_path / "run", seed=3, cluster=cluster)


@pytest.mark.slow
def test_a_lost_worker_costs_its_unfinished_job_and_nothing_else(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path,
    ray_cluster: object,
) -> None:  # fmt: skip
    import psutil

    same = arms()[1].shards
    killed: list[int] = []

    def command(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.NoSuchProcess:  # ended since it was listed
            return ""

    def kill_one(_: str, done: int, all_of_them: int) -> None:
        """Called twice a second from another thread while the worker group runs."""
        workers = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in command(p)]
        if not killed and 0 < done < all_of_them and workers:
            workers[0].kill()
            killed.append(workers[0].pid)

    made = settings(budget={"steps": 200}, seeds=3, generated=0)
    twins = [Arm("left", same), Arm("right", same)]
    with Cluster() as cluster:
        result = compare(made, twins, held_out, tmp_path / "run", seed=3, cluster=cluster, progress=kill_one)
    assert killed, "the comparison ended before a worker could be killed"
    assert all(difference["per_seed"] == [0, 0, 0] for difference in result["differences"])


def test_what_cannot_be_compared_is_refused(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path
) -> None:
    with pytest.raises(CuveeError, match="a name of its own"):
        compare(settings(), [arms()[0], arms()[0]], held_out, tmp_path / "run", seed=3)
    with pytest.raises(RecipeError, match="neither a folder"):
        compare(settings(language_model=str(tmp_path / "none")), arms(), held_out, tmp_path / "run", seed=3)
    assert not (tmp_path / "run").exists()


def test_training_learns_to_say_what_is_seen_and_sound_captions_teach_more(
    settings: Callable[..., TrainSettings], arms: Callable[..., list[Arm]], held_out: pa.Table, tmp_path: Path
) -> None:
    made = settings(budget={"steps": 60}, batch=16, seeds=2, generated=0)
    result = compare(made, arms(240), held_out, tmp_path / "run", seed=3)
    assert result["arms"]["curated"]["samples"] == result["arms"]["raw"]["samples"] == 240
    for run in result["arms"]["curated"]["runs"]:
        assert run["curve"][-1][1] < 0.7 * run["curve"][0][1]
        assert run["metrics"]["visual_use_low"] > 0
    differences = {d["metric"]: d for d in result["differences"]}
    assert all(value < 0 for value in differences["nll_per_token"]["per_seed"])
    assert all(value > 0 for value in differences["visual_use_gap"]["per_seed"])
