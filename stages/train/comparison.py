"""Several data sets, one connector each per seed, everything else equal; a job is one (arm, seed).

Every finished job is a file that exists when it is complete, so that a killed comparison continues with what is
missing, and so that jobs may be done by any number of workers in any order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.errors import CuveeError
from stages.train.continual import REPLAY
from stages.train.decodability import Decodability, decode_missing, decoded_folder
from stages.train.image_features import ImageFeatures
from stages.train.image_places import placed
from stages.train.loop import Frozen
from stages.train.members import with_sources
from stages.train.online_features import OnlineTokens
from stages.train.options.concepts import SOURCE
from stages.train.samples import Again, Draft, Pair, read_pairs
from stages.train.settings import TrainSettings
from stages.train.text_only import TEXT
from stages.train.vision_features import VisualTokens, add_missing

EVALUATION, TARGET = "", "/target"
"""Names of the held-out pairs, and of what a schedule aims at, among the drafts; no arm may have them."""
VERSION = 2
"""Raise it when the same settings and samples give other results."""


Samples = Sequence[str] | Callable[[], Iterator[Pair]]
"""Where an arm's samples come from."""


@dataclass(frozen=True)
class Job:
    """One connector to train."""

    arm: str
    seed: int
    """Number of the seed, from 0; arms with equal numbers start from the same weights."""

    @property
    def name(self) -> str:
        """How its files are called."""
        return f"{self.arm}-{self.seed}"


@dataclass
class Comparison:
    """What is compared, and where its files lie; every worker holds one."""

    settings: TrainSettings
    arms: Mapping[str, Samples]
    """Per arm, its WebDataset tars, or what reads its samples in every worker."""
    folder: Path
    """For finished jobs, checkpoints and connectors."""
    features: Path
    """For visual tokens; may be shared between comparisons."""
    seed: int
    device: str = "cpu"
    steered: tuple[str, str] | None = None
    """The arm whose sources a schedule weighs, and its members.parquet, which names the source of every key."""
    listed: Mapping[str, str] = field(default_factory=dict)
    """Arm to a Parquet file that names the source of its samples (`exported_key`, `source`), where there is one."""
    drafts: dict[str, Draft] = field(default_factory=dict)
    held_sources: dict[str, str] = field(default_factory=dict)
    """Key to source of the held-out pairs, where their table says it."""
    places: dict[str, Again] = field(default_factory=dict)
    """Image hash to what reads the image, where tokens are computed online."""

    @property
    def tokens_folder(self) -> Path:
        """Where this tower's visual tokens lie."""
        return self.settings.feature_key.folder(self.features)

    def jobs(self) -> list[Job]:
        """All of them, seeds outermost: after a kill, early seeds are complete for every arm."""
        return [Job(arm, seed) for seed in range(self.settings.seeds) for arm in self.arms]

    def read(self, evaluation: pa.Table, part: int = 0, parts: int = 1, target: pa.Table | None = None) -> None:
        """Read all samples once and do this worker's share of what must be known before training.

        That is the missing visual tokens; online only those of the tables, and whether the other images decode.

        Args:
            evaluation: held-out (key, image, caption), and their source if it is known.
            part: this worker's number, from 0.
            parts: workers.
            target: (key, image, caption) that a schedule aims at.
        """
        tables = {EVALUATION: evaluation} | ({} if target is None else {TARGET: target})
        if "source" in evaluation.column_names and not evaluation["source"].null_count:
            keys, sources = (evaluation[name].to_pylist() for name in ("key", "source"))
            self.held_sources = dict(zip(keys, sources, strict=True))
        columns = self.settings.columns
        self.drafts = {name: Draft(columns=columns, text_only=name == TEXT) for name in (*tables, *self._samples())}
        held, samples, seen = self._tables(tables), self._read_samples(), set[str]()
        is_cached = self.settings.features == "cached"
        images = self._distinct(chain(held, samples) if is_cached else held, seen)
        told = ((image_hash, pair.image or b"") for image_hash, pair in images)
        add_missing(self.tokens_folder, told, self._tower, part, parts)
        if not is_cached:
            placed_images = self._placed(self._distinct(samples, seen))
            decode_missing(decoded_folder(self.features), placed_images, part, parts)

    def visual(self) -> ImageFeatures:
        """What training has of images, when every worker has read its part."""
        kept = VisualTokens.open(self.tokens_folder)
        if self.settings.features == "cached":
            return kept
        undecodable = Decodability.open(decoded_folder(self.features)).undecodable
        return OnlineTokens(kept, self.places, undecodable, self._tower(), self.settings.decode_threads)

    def _samples(self) -> dict[str, Samples]:
        beside = {REPLAY: self.settings.replay, TEXT: self.settings.text_only}
        return dict(sorted(self.arms.items())) | {name: asked.shards for name, asked in beside.items() if asked}

    def _tower(self) -> Any:
        from stages.train.language_model import one_thread

        with one_thread():
            return self.settings.tower(self.device)

    def _distinct(self, sources: Iterable[tuple[str, Iterator[Pair]]], seen: set[str]) -> Iterator[tuple[str, Pair]]:
        """Draft all samples; (hash, sample) of those with an image that was not seen before."""
        for name, pairs in sources:
            for pair in pairs:
                image_hash = pair.image_hash
                draft = self.drafts[name]
                draft.add(pair, image_hash)
                if pair.image is not None and image_hash not in seen and not draft.text_only:
                    seen.add(image_hash)
                    yield image_hash, pair

    def _placed(self, images: Iterable[tuple[str, Pair]]) -> Iterator[tuple[str, bytes]]:
        """(hash, bytes) of images, keeping where they lie."""
        for image_hash, pair in images:
            if pair.again is None:
                raise CuveeError(
                    f"sample {pair.key!r} lies in {pair.shard or 'a reader'}, which gives no image by itself; "
                    "`features: online` needs tars without compression or image folders: export it, or set "
                    "`features: cached`"
                )
            self.places[image_hash] = pair.again
            yield image_hash, pair.image or b""

    def _tables(self, tables: Mapping[str, pa.Table]) -> Iterator[tuple[str, Iterator[Pair]]]:
        for name, table in tables.items():
            yield name, (Pair(row["key"], row["image"], row["caption"]) for row in table.to_pylist())

    def _read_samples(self) -> Iterator[tuple[str, Iterator[Pair]]]:
        for name, samples in self._samples().items():
            yield name, samples() if callable(samples) else self._read(sorted(samples), name)

    def _read(self, tars: Sequence[str], name: str) -> Iterator[Pair]:
        pairs = read_pairs(tars)
        if self.settings.features == "online" and not self.drafts[name].text_only:
            pairs = placed(pairs)
        return with_sources(pairs, tars) if SOURCE in self.settings.columns else pairs

    def job_file(self, job: Job) -> Path:
        """Where a finished job's result lies."""
        return self.folder / "jobs" / f"{job.name}.json"

    def speed_file(self, job: Job) -> Path:
        """Where it lies how fast the job went; no two runs agree on that, so it is no part of the result."""
        return self.folder / "speeds" / f"{job.name}.json"


def refuse_short_context(settings: TrainSettings, frozen: Frozen) -> None:
    """Refuse captions that do not fit behind the visual tokens, or samples that do not fit a row.

    Raises:
        CuveeError: with both numbers.
    """
    longest = getattr(frozen.language.model.config, "max_position_embeddings", None)
    around = max(
        len(template.before + template.between) for template in frozen.language.templates or (frozen.language.template,)
    )
    needed = settings.connector.places(frozen.visual.grid) + max(around, 1) + settings.max_tokens + 1
    if settings.pack is not None and needed > settings.pack.length:
        raise CuveeError(
            f"a sample can take up {needed} places, but rows are packed to {settings.pack.length}; raise `pack.length`"
        )
    if longest is not None and needed > longest:
        raise CuveeError(
            f"{needed} tokens (visual, text around, caption, end) do not fit the language model's {longest} positions; "
            "lower `visual_tokens` or `max_tokens`"
        )
