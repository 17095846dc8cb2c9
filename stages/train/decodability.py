"""Which images give pixels, found out before training where no token is computed before it.

In a folder, parts: `<name>.json` holds the hashes of images that decode, and the reasons of those that do not. It is
written beside and renamed, so that it is complete when it is there.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from stages.pixels import PixelError, decode, flat_rgb

PART_IMAGES = 4096
"""An interrupted pass repeats at most these."""
VERSION = 1
"""Raise it when other images decode."""


@dataclass
class Decodability:
    """What is known of images by hash."""

    sound: set[str] = field(default_factory=set)
    undecodable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "Decodability":
        """Everything complete in the folder."""
        found = cls()
        for part in sorted(folder.glob("*.json")):
            facts = json.loads(part.read_text())
            found.sound.update(facts["sound"])
            found.undecodable |= facts["undecodable"]
        return found

    def __contains__(self, image: object) -> bool:
        return image in self.sound or image in self.undecodable

    def __len__(self) -> int:
        return len(self.sound) + len(self.undecodable)

    def see(self, image_hash: str, content: bytes) -> None:
        """Decode an image."""
        try:
            flat_rgb(decode(content))
            self.sound.add(image_hash)
        except PixelError as error:
            self.undecodable[image_hash] = error.reason

    def write(self, folder: Path) -> None:
        """As a part of the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"sound": sorted(self.sound), "undecodable": dict(sorted(self.undecodable.items()))}
        text = json.dumps(facts)
        temporary = folder / f".writing-{os.getpid()}"
        temporary.write_text(text)
        os.replace(temporary, folder / f"{xxhash.xxh3_128_hexdigest(text.encode())}.json")


def decoded_folder(root: Path) -> Path:
    """Where it lies below the folder of visual tokens; it depends on no tower."""
    return root / f"decoded-{VERSION}"


def decode_missing(folder: Path, images: Iterable[tuple[str, bytes]], part: int = 0, parts: int = 1) -> None:
    """Decode the images that nobody has decoded before; worker `part` of `parts` takes every `parts`-th one.

    Args:
        folder: from `decoded_folder`.
        images: (hash, bytes), distinct, in an order that is the same for every worker.
        part: this worker's number, from 0.
        parts: workers.
    """
    known, found = Decodability.open(folder), Decodability()
    for number, (image_hash, content) in enumerate(images):
        if number % parts == part and image_hash not in known:
            found.see(image_hash, content)
        if len(found) == PART_IMAGES:
            found.write(folder)
            found = Decodability()
    if len(found):
        found.write(folder)
