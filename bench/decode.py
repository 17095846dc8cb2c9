"""Perceptual hashes against bare decode loops, per core: what hashing costs beside decoding and nothing else.

    python bench/decode.py SHARD...

Decodes and hashes every JPEG of some tars, in alternating rounds on one core. Prints medians of images per CPU second:
bare Pillow, simplejpeg and (where it is installed) PyTurboJPEG loops, and our stage.
"""

import argparse
import io
import statistics
import tarfile
import time
from collections.abc import Callable

import pyarrow as pa
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image

from schemas.columns import IMAGE
from stages.duplicates.perceptual_hash import PerceptualHash

BATCH = 64


def images(shards: list[str]) -> list[bytes]:
    found = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            files = ((member.name, tar.extractfile(member)) for member in tar)
            found += [file.read() for name, file in files if file and name.lower().endswith((".jpg", ".jpeg"))]
    return found


def hashed(found: list[bytes]) -> None:
    score = PerceptualHash().open()
    for start in range(0, len(found), BATCH):
        column = pa.array(found[start : start + BATCH], pa.large_binary())
        score(pa.record_batch([column], pa.schema([IMAGE])))


def with_pillow(found: list[bytes]) -> None:
    for image in found:
        Image.open(io.BytesIO(image)).load()


def with_simplejpeg(found: list[bytes]) -> None:
    for image in found:
        simplejpeg.decode_jpeg(image, "RGB")


def loops() -> dict[str, Callable[[list[bytes]], None]]:
    known: dict[str, Callable[[list[bytes]], None]] = {
        "Pillow": with_pillow,
        "simplejpeg": with_simplejpeg,
        "perceptual_hash": hashed,
    }
    try:
        from turbojpeg import TurboJPEG  # type: ignore[import-not-found,import-untyped,unused-ignore]

        decoder = TurboJPEG()
    except (ImportError, RuntimeError):  # the package finds no libturbojpeg
        return known

    def with_turbojpeg(found: list[bytes]) -> None:
        for image in found:
            decoder.decode(image)

    return {"PyTurboJPEG": with_turbojpeg, **known}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("shards", nargs="+")
    options = parser.parse_args()
    found = images(options.shards)
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, loop in loops().items():
            began = time.process_time()
            loop(found)
            rates.setdefault(name, []).append(len(found) / (time.process_time() - began))
    ours = statistics.median(rates["perceptual_hash"])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:16} {middle:7.0f} images/CPU s  ours is {ours / middle:.2f} x of it")


main()
