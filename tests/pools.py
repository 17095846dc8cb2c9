"""Small generated samples and shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size: int = 48) -> bytes:
    """A JPEG that differs clearly from that of every other number."""
    noise = np.random.Generator(np.random.Philox(number))
    coarse = noise.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> None:
    """A WebDataset shard; each sample is {"__key__": ..., suffix: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for sample in samples:
            key = sample["__key__"].decode()
            for suffix, content in sample.items():
                if suffix == "__key__":
                    continue
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def sample(number: int, caption: str | None = None) -> dict[str, bytes]:
    """One sound sample."""
    text = caption if caption is not None else f"a picture of thing number {number} on a table"
    facts = json.dumps({"number": number}).encode()
    return {"__key__": f"s{number:06d}".encode(), "jpg": picture(number), "txt": text.encode(), "json": facts}
