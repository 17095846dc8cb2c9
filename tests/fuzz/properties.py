"""What has to hold for any bytes at all."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.shards import Container, ShardScan, read_images, read_members
from schemas.columns import IMAGE
from schemas.errors import ShardError
from schemas.tables import INDEX
from stages.duplicates.perceptual_hash import PerceptualHash
from stages.pixels import PixelError, decode, flat_rgb
from stages.quality.image_header import ImageHeader

SHARD_REASONS = {"unreadable_shard", "empty_shard"}
IMAGE_REASONS = {"empty_image", "not_an_image", "unsupported_image", "truncated_image", "broken_image"}
IMAGE_REASONS |= {"too_many_pixels", "decompression_bomb"}


def scanned(path: Path) -> tuple[pa.Table, list[bytes | None], ShardScan] | str:
    """A whole scan, held to its accounting; or why there is none."""
    scan = ShardScan(Container(str(path), "tar"), 1 << 20, 3)
    try:
        slices = list(scan)
    except ShardError as error:
        assert error.reason in SHARD_REASONS, error
        return error.reason
    index = pa.concat_tables([piece.index for piece in slices] or [INDEX.empty_table()])
    index.validate(full=True)
    borders = [0, *index["stop"].to_pylist()]
    assert index["start"].to_pylist() == borders[:-1] and borders[-1] + scan.trailer_bytes == scan.size
    return index, [image.as_py() for piece in slices for image in piece.images], scan


def check_tar(content: bytes, path: Path) -> None:
    """Scan, scan again, read again: nothing raised but ShardError, everything accounted for, the same bytes."""
    path.write_bytes(content)
    found, again = scanned(path), scanned(path)
    if isinstance(found, str) or isinstance(again, str):
        assert found == again
        return
    index, images, scan = found
    assert index.equals(again[0]) and images == again[1] and scan.digest == again[2].digest
    container = Container(str(path), "tar")
    assert read_images(container, index).to_pylist() == images
    members = list(read_members(container, index))
    if content[:2] != b"\x1f\x8b":
        assert scan.size == len(content)
        for row, parts in zip(index["members"].to_pylist(), members, strict=True):
            there = [content[member["offset"] : member["offset"] + member["size"]] for member in row]
            assert [data for _, data in parts] == there
    for key, reason, parts in zip(index["key"].to_pylist(), index["index_reason"].to_pylist(), members, strict=True):
        assert reason is not None or (key and len({suffix for suffix, _ in parts}) == len(parts) >= 2)


def whole_samples(content: bytes, damage: int) -> dict[str, dict[str, bytes]]:
    """Samples of a sound tar all of whose members end before `damage`, by the standard library."""
    found: dict[str, dict[str, bytes]] = {}
    lost = set()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            if member.offset_data + member.size > damage:
                lost.add(key)
            found.setdefault(key, {})[f".{suffix}"] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return {key: parts for key, parts in found.items() if key not in lost}


def check_survivors(sound: bytes, damaged: bytes, path: Path) -> None:
    """Every sample of the sound tar that is whole before the first difference is kept, with its bytes."""
    pairs = zip(sound, damaged, strict=False)
    damage = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(sound), len(damaged)))
    expected = whole_samples(sound, damage)
    path.write_bytes(damaged)
    found = scanned(path)
    if isinstance(found, str):
        assert not expected
        return
    index = found[0]
    rows = zip(index["key"].to_pylist(), index["index_reason"].to_pylist(), strict=True)
    kept = [key for key, reason in rows if reason is None]
    members = dict(zip(index["key"].to_pylist(), read_members(Container(str(path), "tar"), index), strict=True))
    # The last of them may go on in what is damaged, and one that may be incomplete does not pass for whole.
    for key in list(expected)[:-1]:
        assert key in kept
    for key, parts in list(expected.items())[: len(expected) - 1]:
        assert dict(members[key]) == parts


def check_image(content: bytes) -> None:
    """The image stages return a value or a reason, and agree on it."""
    rows = pa.record_batch([pa.array([content], IMAGE.type)], pa.schema([IMAGE]))
    header, hashed = (stage().open()(rows).to_pylist()[0] for stage in (ImageHeader, PerceptualHash))
    reason = header["image_header_reason"]
    assert reason is None or reason in IMAGE_REASONS
    assert hashed["perceptual_hash_reason"] == reason
    assert (hashed["phash"] is None) == (reason is not None)
    try:
        picture = decode(content)
    except PixelError as error:
        assert error.reason == reason
        return
    assert picture.size == (header["width_px"], header["height_px"])
    assert np.asarray(flat_rgb(picture)).dtype == np.uint8
