"""The demo's corpus: a pool of four sources with planted defects, a clean target, and the truth about the plants.

Layout: `pool/<source>/*.tar`, `target/*.tar` (WebDataset: KEY.jpg|png|webp, KEY.txt, KEY.json), `truth.parquet`
(never read by the pipeline) and `corpus.json` (the settings). The same settings give the same bytes.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl
from PIL import Image

from pipeline.demo.captions import boilerplate, caption, product_title
from pipeline.demo.defects import broken_file, encode, near_copy, wrong_caption
from pipeline.demo.plants import BOILERPLATE, CORRUPT, EXACT, MISMATCHED, NEAR, OFF_DOMAIN, SCENE_ORIGINS, Row, plan
from pipeline.demo.render import DEMO_STYLES, draw, draw_screen
from pipeline.demo.scenes import draw_scene, randomness
from schemas.errors import CuveeError

VERSION = 1
"""Raise it when the same settings give other bytes."""
FEWEST_PAIRS = 200
SAMPLES_PER_SHARD = 250
TARGET_SHARE = 0.16
"""Size of the target as a share of the pool's."""
TARGET_SHARES = {"studio": 0.25, "notebook": 0.25, "street": 0.50}
"""The target is clean and of the scene sources' kinds: half of it like the dirtiest one."""
TRUTH = {"source": pl.String, "shard": pl.String, "key": pl.String, "plant": pl.String, "duplicate_of": pl.String}
"""Schema of `truth.parquet`; `duplicate_of` is `source/key` of the sample that a planted copy was made from."""


@dataclass(frozen=True)
class Sample:
    """One sample as it is written."""

    image: bytes
    suffix: str
    caption: str
    size: tuple[int, int]
    """Width and height of the sound image, px."""


def write_corpus(folder: Path, *, pairs: int = 3000, seed: int = 0, plants: bool = True) -> Path:
    """Write the corpus into `folder` at once (built beside it, then renamed) and return the truth file's path.

    `plants=False` writes the same sizes as clean scenes only. A corpus of the same settings is left as it is.

    Raises:
        CuveeError: the folder holds something else, or a corpus of other settings; or too few pairs for the plants.
    """
    settings: dict[str, object] = {"version": VERSION, "pairs": pairs, "seed": seed, "plants": plants}
    if pairs < FEWEST_PAIRS:
        raise CuveeError(f"a demo corpus of {pairs} pairs is too small for its plants; ask for {FEWEST_PAIRS} or more")
    if is_there(folder, settings):
        return folder / "truth.parquet"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rows = plan(pairs, seed, plants)
    for name, part in rows.items():
        write_shards(partial / "pool" / name, (make_sample(row, seed) for row in part))
    write_shards(partial / "target", _target(round(TARGET_SHARE * pairs), seed))
    _truth(rows).write_parquet(partial / "truth.parquet")
    (partial / "corpus.json").write_text(json.dumps(settings) + "\n")
    partial.rename(folder)
    return folder / "truth.parquet"


def make_sample(row: Row, seed: int) -> Sample:
    """The image file and caption of a row; a copy is made from its original's."""
    if row.plant == EXACT and row.original is not None:
        return make_sample(row.original, seed)
    shown = row.original or row
    origin = shown.origin
    rng = randomness(seed, f"pool/{origin.name}", shown.number)
    if row.plant == OFF_DOMAIN:
        screen = Image.fromarray(draw_screen(rng))
        return Sample(encode(screen, origin.suffix), origin.suffix, product_title(rng), screen.size)
    scene = draw_scene(rng, origin.favoured)
    image = Image.fromarray(draw(scene, DEMO_STYLES[origin.style], rng).pixels)
    data, suffix, text = encode(image, origin.suffix), origin.suffix, caption(scene, origin.phrasing, rng)
    damage = randomness(seed, f"plant/{row.origin.name}", row.number)
    if row.plant == MISMATCHED:
        text = wrong_caption(scene, origin.phrasing, damage, origin.favoured)
    elif row.plant == BOILERPLATE:
        text = boilerplate(damage)
    elif row.plant == CORRUPT:
        data = broken_file(data, damage)
    elif row.plant == NEAR:
        data, suffix = near_copy(image, suffix, damage)
        text = caption(scene, origin.phrasing, damage) if damage.random() < 0.5 else text
    return Sample(data, suffix, text, image.size)


def is_there(folder: Path, settings: Mapping[str, object]) -> bool:
    """Whether the corpus asked for is there already; a folder with anything else is refused."""
    marker = folder / "corpus.json"
    if not marker.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CuveeError(f"{folder} is there and holds no demo corpus; name another folder for the corpus")
        return False
    found = json.loads(marker.read_text())
    if found != settings:
        raise CuveeError(f"{folder} holds a demo corpus of {found}, asked for was {settings}; name another folder")
    return True


def _truth(rows: Mapping[str, list[Row]]) -> pl.DataFrame:
    """One line per sample of the pool."""
    lines = []
    for name, part in rows.items():
        for place, row in enumerate(part):
            original = f"{row.original.origin.name}/{_key(row.original.number)}" if row.original else None
            lines.append((name, _shard(place // SAMPLES_PER_SHARD), _key(place), row.plant, original))
    return pl.DataFrame(lines, TRUTH, orient="row")


def _target(count: int, seed: int) -> Iterator[Sample]:
    """Clean samples of the scene sources in `TARGET_SHARES`, drawn one by one."""
    for number in range(count):
        rng = randomness(seed, "target", number)
        origin = SCENE_ORIGINS[int(rng.choice(len(SCENE_ORIGINS), p=[TARGET_SHARES[o.name] for o in SCENE_ORIGINS]))]
        scene = draw_scene(rng, origin.favoured)
        image = Image.fromarray(draw(scene, DEMO_STYLES[origin.style], rng).pixels)
        yield Sample(encode(image, "jpg"), "jpg", caption(scene, origin.phrasing, rng), image.size)


def _shard(number: int) -> str:
    return f"{number:05d}.tar"


def _key(place: int) -> str:
    return f"{place:06d}"


def write_shards(folder: Path, samples: Iterable[Sample]) -> None:
    """WebDataset tars of `SAMPLES_PER_SHARD`, with fixed names, order, owners and times."""
    folder.mkdir(parents=True)
    numbered, shard = enumerate(samples), 0
    while batch := list(islice(numbered, SAMPLES_PER_SHARD)):
        with tarfile.open(folder / _shard(shard), "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, sample in batch:
                _add(tar, _key(place), sample)
        shard += 1


def _add(tar: tarfile.TarFile, key: str, sample: Sample) -> None:
    facts = json.dumps({"width": sample.size[0], "height": sample.size[1], "licence": "CC0-1.0"})
    for suffix, data in ((sample.suffix, sample.image), ("txt", sample.caption.encode()), ("json", facts.encode())):
        entry = tarfile.TarInfo(f"{key}.{suffix}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
