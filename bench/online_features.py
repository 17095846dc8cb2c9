"""Visual tokens cached, computed in the loop, and there with images read ahead: one connector, same bits.

Generated JPEGs of 512 x 384 pixels (noise over smooth colours, so that they compress as photos do) in a tar, the
demo's tower and language model, an MLP, batches of 32; the three ways alternate in one process. `data_wait` is the
share of a run spent waiting for tokens, bytes or pixels. The losses must agree to the last bit, or the script fails.

python -m bench.online_features [--images 512] [--steps 24] [--rounds 5] [--threads 2]
"""

import argparse
import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.train.comparison import Comparison
from stages.train.loop import TrainResult, train
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench

MODELS = Path(__file__).resolve().parent.parent / "pipeline" / "demo" / "models"
SIZE = (512, 384)
WORDS = ("a", "red", "blue", "green", "circle", "square", "above", "beside", "the", "large", "small", "heart")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in {"images": 512, "steps": 24, "rounds": 5, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    ways = {
        "cached": {},
        "online, read when needed": {"features": "online", "decode_threads": 0},
        f"online, {given.threads} threads read ahead": {"features": "online", "decode_threads": given.threads},
    }
    with tempfile.TemporaryDirectory() as folder:
        tar, size = written(Path(folder) / "images.tar", given.images)
        benches = {way: opened(settings(given.steps, more), tar, Path(folder) / way) for way, more in ways.items()}
        found: dict[str, list[TrainResult]] = {way: [] for way in ways}
        for turn in range(given.rounds + 1):
            for way, bench in benches.items():
                result = train(bench.comparison.settings, bench.frozen, bench.corpora["one"], "0")
                found[way] += [result] if turn else []  # the first turn tries the models
    if len({str(result.curve) for results in found.values() for result in results}) > 1:
        raise SystemExit("losses differ between the ways")
    print(f"\n{given.images} JPEGs of {SIZE[0]} x {SIZE[1]}, {size / given.images / 1000:.0f} kB each\n")
    report({way: [result.speed for result in results] for way, results in found.items()})


def settings(steps: int, more: Mapping[str, Any]) -> TrainSettings:
    """Of one way."""
    models = {"vision_model": f"local-dir:{MODELS / 'encoder'}", "language_model": str(MODELS / "language_model")}
    return TrainSettings.model_validate({**models, "budget": {"steps": steps}, "visual_tokens": 64, "seeds": 1, **more})


def picture(number: int) -> bytes:
    """A JPEG with the smooth and the rough of a photo."""
    noise = np.random.default_rng(number)
    smooth = Image.fromarray(noise.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    rough = noise.normal(0, 12, (SIZE[1], SIZE[0], 1))
    buffer = io.BytesIO()
    pixels = np.clip(np.asarray(smooth, np.float64) + rough, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def caption(number: int) -> str:
    """A few words."""
    return " ".join(np.random.default_rng(number).choice(WORDS, 10))


def written(path: Path, images: int) -> tuple[str, int]:
    """The tar, and the bytes of its images."""
    size = 0
    with tarfile.open(path, "w") as archive:
        for number in range(images):
            image = picture(number)
            size += len(image)
            for suffix, body in (("jpg", image), ("txt", caption(number).encode())):
                info = tarfile.TarInfo(f"k{number:06d}.{suffix}")
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    return str(path), size


def opened(told: TrainSettings, tar: str, folder: Path) -> Workbench:
    """Everything that stands before training."""
    numbers = range(10**6, 10**6 + 4)
    columns = {"key": [str(n) for n in numbers], "image": [picture(n) for n in numbers]}
    held = pa.table({**columns, "caption": [caption(n) for n in numbers]})
    comparison = Comparison(told, {"one": [tar]}, folder, folder / "features", seed=0)
    comparison.read(held)
    return Workbench(comparison)


def report(speeds: Mapping[str, list[Mapping[str, Any]]]) -> None:
    """A line per way: medians over rounds."""
    print("| | samples/s | of cached | data_wait |\n| --- | --- | --- | --- |")
    first = np.array([speed["samples_per_s"] for speed in next(iter(speeds.values()))])
    for way, runs in speeds.items():
        rates = np.array([speed["samples_per_s"] for speed in runs])
        waited = np.median([speed["data_wait"] for speed in runs])
        print(f"| {way} | {np.median(rates):.1f} | {np.median(rates / first):.2f} x | {100 * waited:.1f} % |")


if __name__ == "__main__":
    main()
