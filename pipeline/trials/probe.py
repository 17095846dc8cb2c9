"""The contrastive probe as pilot: embeddings come from the sidecars, no image is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.numpy import save

from pipeline.blend import values
from pipeline.cluster import Cluster
from pipeline.score import Progress
from pipeline.sidecars import replacing
from pipeline.trials.pilot import Measured, Trial
from pipeline.trials.split import Split
from schemas.columns import CAPTION, IMAGE_EMBEDDING, TEXT_EMBEDDING
from schemas.errors import CuveeError
from stages.train.contrastive_probe import (
    VERSION,
    ContrastiveProbe,
    EmbeddedPairs,
    evaluate_probe,
    train_probe,
)

COLUMNS = (IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name)


@dataclass(frozen=True)
class ProbePilot:
    """The probe and what it reads."""

    settings: ContrastiveProbe
    kind: str = "contrastive_probe"

    def drawn(self, budget: int) -> int:
        """Whole batches."""
        return self.settings.steps(budget) * self.settings.batch

    def identity(self, split: Split) -> Any:
        """Settings, and where the embeddings come from."""
        resolved = split.chosen.table.resolved
        writers = [stage.name for stage in resolved.stages if {field.name for field in stage.writes} & {*COLUMNS}]
        settings = self.settings.model_dump(mode="json")
        return {"version": VERSION, **settings, "embeddings": {name: resolved.asked[name] for name in writers}}

    def prepare(self, split: Split, folder: Path, cluster: Cluster, progress: Progress) -> tuple["ProbeBench", int]:
        """Gather the embeddings of all pairs in one file."""
        path = folder / "embeddings.safetensors"
        if not path.exists():
            arrays = _arrays(split)
            with replacing(path) as temporary:
                temporary.write_bytes(save(arrays))
        seed = split.chosen.table.resolved.recipe.seed
        return ProbeBench(self.settings, str(path), tuple(split.drawn_from), tuple(split.held), seed), 0


@dataclass(frozen=True)
class ProbeBench:
    """Trains probes from one file of embeddings."""

    settings: ContrastiveProbe
    path: str
    sources: tuple[str, ...]
    held: tuple[str, ...]
    seed: int

    def open(self) -> Callable[[Trial], Measured]:
        """Read the file."""
        corpora = {name: self._pairs(f"drawn/{name}") for name in self.sources}
        held = {name: self._pairs(f"held/{name}") for name in self.held}

        def do(trial: Trial) -> Measured:
            weights = np.array([trial.shares[name] for name in sorted(corpora)])
            trained = train_probe(self.settings, corpora, trial.budget, f"{self.seed}/{trial.seed}", weights)
            return Measured(trained.drawn, evaluate_probe(self.settings, trained, held, self.seed))

        return do

    def _pairs(self, part: str) -> EmbeddedPairs:
        with safe_open(self.path, "numpy") as file:
            images, captions, ids, uids = (
                file.get_tensor(f"{part}/{name}") for name in ("images", "captions", "ids", "uids")
            )
        keys = tuple(bytes(uid).decode() for uid in uids)
        return EmbeddedPairs(keys, images, captions, ids[0].copy(), ids[1].copy())


def _arrays(split: Split) -> dict[str, Any]:
    """`drawn/SOURCE/...` and `held/SOURCE/...`: images (n, d), captions (n, e), ids (2, n), uids (n, 32) bytes."""
    gather = _Gatherer(split)
    found: dict[str, Any] = {}
    for part, frames in (("drawn", split.drawn_from), ("held", split.held)):
        for name, rows in frames.items():
            found |= {f"{part}/{name}/{key}": array for key, array in gather.arrays(name, rows).items()}
    widths = {key: array.shape[1] for key, array in found.items() if key.endswith(("/images", "/captions"))}
    if len({width for key, width in widths.items() if key.endswith("/images")}) > 1:
        raise CuveeError(f"image embeddings are of different widths: {widths}; were models mixed?")
    return found


class _Gatherer:
    """Equal images and equal captions get equal numbers, in all sources."""

    def __init__(self, split: Split) -> None:
        self.table = split.chosen.table
        self.images: dict[str, int] = {}
        self.captions: dict[str, int] = {}

    @cached_property
    def scores(self) -> pl.LazyFrame:
        roles = self.table.samples["role"].unique().sort()
        return pl.concat([self.table.scores(role, [CAPTION.name, *COLUMNS]) for role in roles])

    def arrays(self, name: str, rows: pl.DataFrame) -> Mapping[str, Any]:
        frame = self.scores.join(rows.lazy(), on="uid").sort("uid").collect()
        sound = frame.drop_nulls([CAPTION.name, *COLUMNS])
        if sound.is_empty():
            lost = {column: frame[column].null_count() for column in (CAPTION.name, *COLUMNS)}
            raise CuveeError(
                f"{name!r} has no pair with a caption and embeddings: of {len(frame)} samples there lack {lost}; "
                "give it captions, or leave it out"
            )
        images = [self.images.setdefault(image, len(self.images)) for image in sound["image_hash"]]
        captions = [self.captions.setdefault(text, len(self.captions)) for text in sound[CAPTION.name]]
        return {
            "images": np.ascontiguousarray(values(sound[IMAGE_EMBEDDING.name])),
            "captions": np.ascontiguousarray(values(sound[TEXT_EMBEDDING.name])),
            "ids": np.array([images, captions], np.int64),
            "uids": np.array([list(uid.encode()) for uid in sound["uid"]], np.uint8),
        }
