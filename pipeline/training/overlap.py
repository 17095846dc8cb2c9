"""Samples that show a held-out image: of every arm they are left out, by equal bytes and by close perceptual hashes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.holdout import MATCH_DISTANCE
from pipeline.tasks import Task, run_tasks
from pipeline.training.contestants import Contestant, Reader
from schemas.columns import IMAGE, PHASH
from stages.duplicates.perceptual_hash import PerceptualHash
from stages.hamming import closest
from stages.train.samples import Pair

BATCH = 256
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Arms:
    """Reads several parts one after the other, without some of their samples."""

    readers: tuple[Reader, ...]
    without: frozenset[str] = frozenset()
    """Keys."""

    def __call__(self) -> Iterator[Pair]:
        """The samples that stay."""
        return (pair for reader in self.readers for pair in reader() if pair.key not in self.without)


@dataclass(frozen=True)
class Search:
    """Looks for held-out images in a worker."""

    readers: tuple[Reader, ...]
    images: frozenset[str]
    """Hashes of the held-out images' bytes."""
    hashes: tuple[int, ...]
    """Their perceptual hashes."""

    def open(self) -> Task:
        """One hasher per worker."""
        hashed = Hasher()
        held = np.array(self.hashes, np.uint64)

        def task(piece: str) -> Iterator[list[str]]:
            found: list[str] = []
            for batch in _batches(self.readers[int(piece)]()):
                near = np.zeros(len(batch), np.bool_)
                known, there = hashed([pair.image for pair in batch])
                near[there] = closest(known, held, MATCH_DISTANCE)[0] >= 0
                found += [p.key for p, close in zip(batch, near, strict=True) if close or p.image_hash in self.images]
            yield found

        return task


class Hasher:
    """Images to perceptual hashes, as the recipe's score step makes them."""

    def __init__(self) -> None:
        """Load the decoder once."""
        self.score = PerceptualHash().open()

    def __call__(self, images: Sequence[bytes | None]) -> tuple[Hashes, npt.NDArray[np.int64]]:
        """(m,) hashes, and (m,) which of the images they are of: those that decode."""
        column = pa.array(images, pa.large_binary())
        scored = self.score(pa.record_batch([column], [IMAGE.name])).column(PHASH.name)
        there = np.flatnonzero(scored.is_valid().to_numpy(zero_copy_only=False))
        return scored.drop_null().to_numpy().astype(np.uint64), there


def _batches(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def overlaps(found: Sequence[Contestant], held: pa.Table, cluster: Cluster) -> dict[str, list[str]]:
    """Per contestant the keys of its samples that show a held-out image, sorted.

    Args:
        found: the contestants.
        held: held-out (key, image, caption).
        cluster: where images are hashed.
    """
    images = held["image"].to_pylist()
    hashes = Hasher()(images)[0]
    readers = [(each.name, reader) for each in found for reader in each.readers]
    exact = frozenset(Pair("", image, None).image_hash for image in images)
    job = Search(tuple(reader for _, reader in readers), exact, tuple(hashes.tolist()))
    keys: dict[str, list[str]] = {each.name: [] for each in found}
    for piece, matches in run_tasks(cluster, job, [json.dumps(number) for number in range(len(readers))]):
        keys[readers[int(piece)][0]] += matches
    return {name: sorted(matches) for name, matches in keys.items()}
