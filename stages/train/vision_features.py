"""Visual tokens on disk, computed once per distinct image and shared by every arm and seed.

A folder per tower, preprocessing, layer, kind, token count and dtype; in it, parts: `<name>.npy` holds fp16 tokens,
`<name>.json` the images' hashes, how an image's tokens stand and the reasons of those that do not decode. A part whose
.json exists is complete; it is written last, then renamed. What is cached is checked by computing a few images again.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from stages.pixels import PixelError, decode, flat_rgb
from stages.train.connectors.contract import FeatureKind, Grid
from stages.train.spot_check import SpotCheck
from stages.train.vision_tower import BATCH, VisionTower

Halves = npt.NDArray[np.float16]
PART_BATCHES = 8
"""Batches per part: an interrupted pass repeats at most these."""
VERSION = 2
"""Raise it when the same tower gives other tokens."""


@dataclass(frozen=True)
class FeatureKey:
    """What the tokens of an image depend on, beside the image."""

    vision: str
    """Identity of the tower's weights."""
    preprocessing: str
    """Resolution, and what is done to an image before the tower sees it."""
    kind: FeatureKind
    layer: int
    visual_tokens: int
    """Most tokens per image; 0 where the kind decides it."""
    dtype: str = "float16"

    def folder(self, root: Path) -> Path:
        """Where such tokens lie below `root`."""
        facts = json.dumps([VERSION, *vars(self).values(), BATCH])
        return root / f"visual-tokens-{xxhash.xxh3_64_hexdigest(facts.encode())}"


@dataclass
class VisualTokens:
    """The tokens that are there, memory-mapped."""

    parts: list[Halves] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Image hash to (part, row)."""
    undecodable: dict[str, str] = field(default_factory=dict)
    """Image hash to the reason it gives no tokens."""
    stands: Grid | None = None
    """How the tokens of an image stand; None: in one row."""
    folder: Path | None = None
    """Where they lie, and where other constants of training may."""

    @classmethod
    def open(cls, folder: Path) -> "VisualTokens":
        """Everything complete in the folder."""
        found = cls(folder=folder)
        for card in sorted(folder.glob("*.json")):
            found._add(json.loads(card.read_text()), card.with_suffix(".npy"))
        return found

    def _add(self, facts: dict[str, Any], file: Path) -> None:
        if facts["images"]:
            self.stands = Grid(*facts["grid"])
            self.places |= {image: (len(self.parts), row) for row, image in enumerate(facts["images"])}
            self.parts.append(np.load(file, mmap_mode="r", allow_pickle=False))
        self.undecodable |= facts["undecodable"]

    def __contains__(self, image: object) -> bool:
        return image in self.places or image in self.undecodable

    @property
    def width(self) -> int:
        """Width of one visual token."""
        return int(self.parts[0].shape[2])

    @property
    def grid(self) -> Grid:
        """How the tokens of an image stand."""
        return self.stands or Grid(1, int(self.parts[0].shape[1]))

    @property
    def bytes_per_image(self) -> int:
        """What an image's tokens take up on disk."""
        return int(self.parts[0][0].nbytes)

    @property
    def foresees(self) -> int:
        """Nothing is gained by being told what comes."""
        return 0

    def expect(self, images: Iterable[str]) -> None:
        """They are there."""

    def read(self, images: Sequence[str]) -> Callable[[], Halves]:
        """Read tokens; there is nothing left to compute."""
        found = self.gather(images)
        return lambda: found

    def gather(self, images: Sequence[str]) -> Halves:
        """(n, tokens, width) of images by hash."""
        return np.stack([self.parts[part][row] for part, row in (self.places[image] for image in images)])


def add_missing(
    folder: Path, images: Iterable[tuple[str, bytes]], tower: Callable[[], VisionTower], part: int = 0, parts: int = 1
) -> None:
    """Compute the tokens that `folder` lacks, and a few of those it has again.

    Batches are runs of `BATCH` distinct images in the order given, whoever computes them: worker `part` of `parts`
    takes every `parts`-th one. The tower is loaded when it is first needed.

    Args:
        folder: from `FeatureKey.folder`.
        images: (hash, bytes), distinct, in an order that is the same for every worker.
        tower: loads the tower.
        part: this worker's number, from 0.
        parts: workers.

    Raises:
        CuveeError: what is cached is not what the tower gives.
    """
    check, loaded = SpotCheck(VisualTokens.open(folder), folder), cache(tower)
    done = _Part()
    for batch in _batches(images, check, part, parts):
        done.add(batch, loaded())
        if done.batches == PART_BATCHES:
            done.write(folder)
            done = _Part()
    if done.batches:
        done.write(folder)
    check.verify(loaded)


def _batches(
    images: Iterable[tuple[str, bytes]], check: SpotCheck, part: int, parts: int
) -> Iterator[list[tuple[str, bytes]]]:
    mine: list[tuple[str, bytes]] = []
    for number, (image_hash, content) in enumerate(images):
        batch, place = divmod(number, BATCH)
        if place == 0 and mine:
            yield mine
            mine = []
        if batch % parts == part and image_hash not in check.cached:
            mine.append((image_hash, content))
        elif batch % parts == part:
            check.see(image_hash, content)
    if mine:
        yield mine


@dataclass
class _Part:
    images: list[str] = field(default_factory=list)
    tokens: list[Halves] = field(default_factory=list)
    undecodable: dict[str, str] = field(default_factory=dict)
    grid: Grid | None = None
    batches: int = 0

    def add(self, batch: list[tuple[str, bytes]], tower: VisionTower) -> None:
        self.batches += 1
        pictures = []
        for image_hash, content in batch:
            try:
                pictures.append(flat_rgb(decode(content)))
                self.images.append(image_hash)
            except PixelError as error:
                self.undecodable[image_hash] = error.reason
        if pictures:
            tokens, self.grid = tower.features(pictures)
            self.tokens.append(tokens)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = xxhash.xxh3_128_hexdigest("\n".join([*self.images, *self.undecodable]).encode())
        temporary = folder / f".writing-{name}-{os.getpid()}"
        if self.images:
            with open(temporary, "wb") as stream:
                np.save(stream, np.concatenate(self.tokens), allow_pickle=False)
            os.replace(temporary, folder / f"{name}.npy")
        facts = {"images": self.images, "grid": self.grid, "undecodable": self.undecodable}
        temporary.write_text(json.dumps(facts))
        os.replace(temporary, folder / f"{name}.json")
