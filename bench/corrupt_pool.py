"""A pool of real photos with planted damage: 1,802 good pairs, 96 bad ones, 102 behind a cut."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

SHARDS = 8
PAIRS = 250
FIRST_BAD, STEP, BAD = 38, 9, 12
"""In every shard, positions 38, 47, ... 137."""
WHOLE_IN_LAST = 148
"""The last shard ends inside the image of the next pair, after 60 % of its pairs."""
DAMAGE = ("truncated_image", "empty_image", "duplicate_member", "missing_caption")

Pair = tuple[bytes, bytes]


@dataclass
class Truth:
    """What was planted, by key; the pipeline never sees it."""

    good: list[str]
    bad: dict[str, str]
    """Key -> reason."""
    gone: list[str]
    """Keys behind the cut, that of the pair that was cut first."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(vars(self)))


def photos(data: Path) -> Iterator[Pair]:
    """(JPEG, caption) of the real photos."""
    for path in [*sorted((data / "pool/photos").glob("*.tar")), *sorted((data / "target/photos").glob("*.tar"))]:
        with tarfile.open(path) as archive:
            parts: dict[str, dict[str, bytes]] = {}
            for member in archive:
                key, _, suffix = member.name.partition(".")
                stream = archive.extractfile(member)
                assert stream is not None
                parts.setdefault(key, {})[suffix] = stream.read()
        yield from ((found["jpg"], found["txt"]) for found in parts.values() if {"jpg", "txt"} <= found.keys())


def build(data: Path, folder: Path) -> Truth:
    """Write the shards and return what is in them."""
    folder.mkdir(parents=True)
    pairs, truth = photos(data), Truth([], {}, [])
    for shard in range(SHARDS):
        path = folder / f"{shard:05d}.tar"
        starts = _write(path, shard, list(islice(pairs, PAIRS)), truth)
    assert len(truth.good) + len(truth.bad) == SHARDS * PAIRS, "too few photos"
    cut = [f"{SHARDS - 1}_{number:04d}" for number in range(WHOLE_IN_LAST, PAIRS)]
    truth.gone, truth.good = cut, [key for key in truth.good if key not in set(cut)]
    with open(path, "r+b") as stream:
        stream.truncate(starts[WHOLE_IN_LAST] + tarfile.BLOCKSIZE + 1000)
    return truth


def _write(path: Path, shard: int, pairs: list[Pair], truth: Truth) -> list[int]:
    """One shard; returns where each pair begins."""
    starts = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (image, caption) in enumerate(pairs):
            key, place = f"{shard}_{number:04d}", number - FIRST_BAD
            starts.append(archive.offset)
            members = [(f"{key}.jpg", image), (f"{key}.txt", caption)]
            if place >= 0 and place % STEP == 0 and place // STEP < BAD:
                reason = DAMAGE[(place // STEP + shard) % len(DAMAGE)]
                truth.bad[key] = reason
                members = _damaged(members, reason)
            else:
                truth.good.append(key)
            for name, content in members:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return starts


def _damaged(members: list[tuple[str, bytes]], reason: str) -> list[tuple[str, bytes]]:
    (name, image), caption = members
    return {
        "truncated_image": [(name, image[: len(image) // 2]), caption],
        "empty_image": [(name, b""), caption],
        "duplicate_member": [(name, image), (name, image), caption],
        "missing_caption": [(name, image)],
    }[reason]
