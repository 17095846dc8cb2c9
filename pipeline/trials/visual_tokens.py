"""The visual tokens of all pairs, computed once: pieces of shards on Ray, by the ranges that the index knows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.score import Progress
from pipeline.shards import Container, read_images
from pipeline.sidecars import read_table
from pipeline.tasks import Task, run_tasks
from pipeline.trials.split import Split
from stages.train.language_model import one_thread
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens, add_missing

ROWS_PER_PIECE = 512
"""Of a container that is read by ranges; what is read in one pass is one piece."""


@dataclass(frozen=True)
class Piece:
    """Some images of a shard."""

    container: Container
    index: str
    """Path of its index."""
    rows: tuple[int, ...]
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class ComputeTokens:
    """What a worker does."""

    pieces: dict[str, Piece]
    settings: dict[str, Any]
    folder: str
    device: str

    def open(self) -> Task:
        """The tower is loaded for the first image that is missing."""
        tower = cache(self._tower)

        def task(name: str) -> Iterator[int]:
            piece = self.pieces[name]
            add_missing(Path(self.folder), _images(piece), tower)
            yield len(piece.rows)

        return task

    def _tower(self) -> Any:
        with one_thread():
            return TrainSettings.model_validate(self.settings).tower(self.device)


def _images(piece: Piece) -> Iterator[tuple[str, bytes]]:
    lines = read_table(Path(piece.index)).take(pa.array(piece.rows))
    images = read_images(piece.container, lines).to_pylist()
    return ((image_hash, image or b"") for image_hash, image in zip(piece.hashes, images, strict=True))


def compute_tokens(split: Split, settings: TrainSettings, folder: Path, cluster: Cluster, progress: Progress) -> int:
    """Compute what `folder` lacks; returns the cluster's GPUs.

    Each distinct image is read once, wherever it stands first.
    """
    known, every = VisualTokens.open(folder), dict(_pieces(split))
    pieces = {name: piece for name, piece in every.items() if not all(image in known for image in piece.hashes)}
    if not pieces:  # what is cached is checked all the same
        pieces = dict(list(_cached(every, known))[:1])
    gpus = int(cluster.ray.cluster_resources().get("GPU", 0))
    job = ComputeTokens(pieces, settings.model_dump(mode="json"), str(folder.resolve()), "cuda" if gpus else "cpu")
    total, done = sum(len(piece.rows) for piece in pieces.values()), 0
    for _, count in run_tasks(cluster, job, pieces, gpus=min(1, gpus)):
        done += count
        progress("visual tokens", done, total)
    return gpus


def _cached(pieces: dict[str, Piece], known: VisualTokens) -> Iterator[tuple[str, Piece]]:
    """Of each piece one image that has tokens, where there is one."""
    for name, piece in pieces.items():
        there = [place for place, image in enumerate(piece.hashes) if image in known.places][:1]
        if there:
            yield name, replace(piece, rows=(piece.rows[there[0]],), hashes=(piece.hashes[there[0]],))


def _pieces(split: Split) -> Iterator[tuple[str, Piece]]:
    table = split.chosen.table
    uids = pl.concat([*split.drawn_from.values(), *split.held.values()]).select("uid").unique()
    samples = table.samples.join(uids, on="uid", how="semi")
    samples = samples.sort("role", "source", "shard", "row").unique("image_hash", keep="first", maintain_order=True)
    shards = {(s.input.role, s.input.source, s.input.container.path): s for s in table.shards}
    groups = samples.partition_by("role", "source", "shard", as_dict=True, maintain_order=True)
    for place, part in groups.items():
        shard = shards[(str(place[0]), str(place[1]), str(place[2]))]
        container = shard.input.container
        index = table.resolved.workspace.sidecar(shard.input.index_address, str(shard.digest))
        width = ROWS_PER_PIECE if container.format in ("tar", "parquet", "folder") else len(part)
        for number, rows in enumerate(part.iter_slices(width)):
            facts = str(index.resolve()), tuple(rows["row"]), tuple(rows["image_hash"])
            yield f"{container.path}, images of part {number + 1}", Piece(container, *facts)
