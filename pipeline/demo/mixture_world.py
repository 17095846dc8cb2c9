"""The demo's second pool, for mixtures: four clean-cut sources of which the target wants known shares.

`studio` and `street` are useful, each shows one half of what the target shows; `studio_again` is redundant: other
samples of just what `studio` shows; `scraped` is harmful: street scenes whose captions belong to other scenes. So the
best mixture gives `street` a half, the studio pair the other half in any split, and `scraped` nothing, while the pool
is mostly `scraped`. Nothing is planted sample by sample, and every caption is well-formed: which source is which shows
only in how images and captions go together.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.demo.captions import caption
from pipeline.demo.corpus import Sample, is_there, write_shards
from pipeline.demo.defects import encode, wrong_caption
from pipeline.demo.plants import SCENE_ORIGINS, Origin
from pipeline.demo.render import DEMO_STYLES, draw
from pipeline.demo.scenes import draw_scene, randomness
from schemas.errors import CuveeError

VERSION = 1
"""Raise it when the same settings give other bytes."""
FEWEST_PAIRS = 400
TARGET_SHARE = 0.2
"""Size of the target as a share of the pool's."""
_ORIGINS = {origin.name: origin for origin in SCENE_ORIGINS}


@dataclass(frozen=True)
class Planted:
    """A source of the mixture world."""

    name: str
    origin: Origin
    """How its images look, what they show, how captions read."""
    share: float
    """Of the pool."""
    harmful: bool = False
    """Captions of other scenes."""


SOURCES = (
    Planted("scraped", _ORIGINS["street"], 0.40, harmful=True),
    Planted("street", _ORIGINS["street"], 0.15),
    Planted("studio", _ORIGINS["studio"], 0.15),
    Planted("studio_again", _ORIGINS["studio"], 0.30),
)
USEFUL, REDUNDANT, HARMFUL = ("street", "studio"), ("studio", "studio_again"), "scraped"


def write_mixture_world(folder: Path, *, pairs: int = 3000, seed: int = 0) -> Path:
    """Write `pool/<source>/*.tar` and `target/*.tar` into `folder` at once; a world of the same settings is left.

    Raises:
        CuveeError: the folder holds something else, or a world of other settings; or too few pairs.
    """
    settings: dict[str, object] = {"world": "mixture", "version": VERSION, "pairs": pairs, "seed": seed}
    if pairs < FEWEST_PAIRS:
        raise CuveeError(f"a mixture world of {pairs} pairs is too small to learn from; ask for {FEWEST_PAIRS} or more")
    if is_there(folder, settings):
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for source in SOURCES:
        samples = (source_sample(source, number, seed) for number in range(round(source.share * pairs)))
        write_shards(partial / "pool" / source.name, samples)
    write_shards(partial / "target", _target(round(TARGET_SHARE * pairs), seed))
    (partial / "corpus.json").write_text(json.dumps(settings) + "\n")
    partial.rename(folder)
    return folder


def source_sample(source: Planted, number: int, seed: int) -> Sample:
    """Sample `number` of a source."""
    rng = randomness(seed, f"mixture/{source.name}", number)
    return _sample(source.origin, rng, harmful=source.harmful)


def _target(count: int, seed: int) -> Iterator[Sample]:
    """Clean samples, street and studio by turns."""
    for number in range(count):
        yield _sample(_ORIGINS[USEFUL[number % 2]], randomness(seed, "mixture/target", number), harmful=False)


def _sample(origin: Origin, rng: np.random.Generator, *, harmful: bool) -> Sample:
    scene = draw_scene(rng, origin.favoured)
    image = Image.fromarray(draw(scene, DEMO_STYLES[origin.style], rng).pixels)
    write = wrong_caption if harmful else caption
    text = write(scene, origin.phrasing, rng)
    return Sample(encode(image, origin.suffix), origin.suffix, text, image.size)
