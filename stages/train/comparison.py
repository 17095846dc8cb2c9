"""Several data sets, one connector each per seed, everything else equal; a job is one (arm, seed).

Every finished job is a file that exists when it is complete, so that a killed comparison continues with what is
missing, and so that jobs may be done by any number of workers in any order.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from schemas.errors import CuveeError
from stages.train.connector import save_connector
from stages.train.language_model import load_language_model
from stages.train.loop import Frozen, train
from stages.train.metrics import Evaluation, evaluate
from stages.train.samples import Corpus, Draft, Pair, corpus, read_pairs
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens, add_missing, feature_folder
from stages.train.vision_tower import load_tower

EVALUATION = ""
"""Name of the held-out pairs among the drafts; no arm may have it."""
VERSION = 1
"""Raise it when the same settings and samples give other results."""


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
    arms: Mapping[str, Sequence[str]]
    """Per arm, its WebDataset tars."""
    folder: Path
    """For finished jobs, checkpoints and connectors."""
    features: Path
    """For visual tokens; may be shared between comparisons."""
    seed: int
    device: str = "cpu"
    drafts: dict[str, Draft] = field(default_factory=dict)

    @property
    def tokens_folder(self) -> Path:
        """Where this tower's visual tokens lie."""
        return feature_folder(self.features, self.settings.vision_identity, self.settings.visual_tokens)

    def jobs(self) -> list[Job]:
        """All of them, seeds outermost: after a kill, early seeds are complete for every arm."""
        return [Job(arm, seed) for seed in range(self.settings.seeds) for arm in self.arms]

    def read(self, evaluation: pa.Table, part: int = 0, parts: int = 1) -> None:
        """Read all samples once and compute this worker's share of the missing visual tokens.

        Args:
            evaluation: held-out (key, image, caption).
            part: this worker's number, from 0.
            parts: workers.
        """
        self.drafts = {name: Draft() for name in (EVALUATION, *self.arms)}
        add_missing(self.tokens_folder, self._distinct(evaluation), self._tower, part, parts)

    def _tower(self) -> Any:
        from stages.train.language_model import one_thread

        with one_thread():
            settings = self.settings
            return load_tower(settings.vision_model, settings.vision_pretrained, settings.visual_tokens, self.device)

    def _distinct(self, evaluation: pa.Table) -> Iterator[tuple[str, bytes]]:
        seen: set[str] = set()
        for name, pairs in self._sources(evaluation):
            for pair in pairs:
                image_hash = pair.image_hash
                self.drafts[name].add(pair, image_hash)
                if pair.image is not None and image_hash not in seen:
                    seen.add(image_hash)
                    yield image_hash, pair.image

    def _sources(self, evaluation: pa.Table) -> Iterator[tuple[str, Iterator[Pair]]]:
        yield EVALUATION, (Pair(row["key"], row["image"], row["caption"]) for row in evaluation.to_pylist())
        for arm in sorted(self.arms):
            yield arm, read_pairs(sorted(self.arms[arm]))

    def job_file(self, job: Job) -> Path:
        """Where a finished job's result lies."""
        return self.folder / "jobs" / f"{job.name}.json"


class Workbench:
    """The models loaded and the samples tokenised: does one job after another. Opened when all tokens are there."""

    def __init__(self, comparison: Comparison) -> None:
        """Load what every job shares.

        Raises:
            CuveeError: an arm without samples, too few held-out images, or a context too short for the captions.
        """
        self.comparison = comparison
        settings = comparison.settings
        language = load_language_model(settings.language_folder, comparison.device)
        self.frozen = Frozen(language, VisualTokens.open(comparison.tokens_folder))
        corpora = {
            name: corpus(draft, language.tokenize, self.frozen.visual.undecodable, settings.max_tokens)
            for name, draft in comparison.drafts.items()
        }
        self.asked = Evaluation.over(corpora.pop(EVALUATION), settings.generated, comparison.seed)
        self.corpora: dict[str, Corpus] = corpora
        if empty := sorted(name for name, samples in corpora.items() if not len(samples)):
            unusable = dict(corpora[empty[0]].unusable)
            raise CuveeError(f"arm {empty[0]!r} has no sample with a decodable image and a caption; found {unusable}")
        refuse_short_context(settings, self.frozen)

    @cached_property
    def _common(self) -> dict[str, Any]:
        comparison = self.comparison
        asked = self.asked.corpus.fingerprint
        return {
            "version": VERSION,
            "settings": comparison.settings.identity(),
            "seed": comparison.seed,
            "evaluation": asked,
        }

    def fingerprint(self, job: Job) -> str:
        """What a job's result depends on, as 16 hex digits."""
        facts = {**self._common, "data": self.corpora[job.arm].fingerprint, "number": job.seed}
        return xxhash.xxh3_64_hexdigest(json.dumps(facts, sort_keys=True).encode())

    def pending(self) -> list[Job]:
        """Jobs without a finished result for just these samples, settings and models."""
        return [job for job in self.comparison.jobs() if self._finished(job) != self.fingerprint(job)]

    def _finished(self, job: Job) -> str | None:
        file = self.comparison.job_file(job)
        return str(json.loads(file.read_text())["fingerprint"]) if file.exists() else None

    def do(self, job: Job) -> dict[str, Any]:
        """Train, evaluate, save the connector, and write the job's result."""
        comparison, fingerprint = self.comparison, self.fingerprint(job)
        samples = self.corpora[job.arm]
        checkpoint = comparison.folder / "checkpoints" / f"{job.name}-{fingerprint}.safetensors"
        seed = f"{comparison.seed}/{job.seed}"
        trained = train(comparison.settings, self.frozen, samples, seed, checkpoint=checkpoint)
        save_connector(trained.connector, trained.card, comparison.folder / "connectors" / job.name)
        result = {
            "arm": job.arm,
            "seed": job.seed,
            "fingerprint": fingerprint,
            "device": comparison.device,
            "samples": len(samples),
            "distinct_images": len(set(samples.images)),
            "unusable": dict(samples.unusable),
            "evaluation": {**self.asked.facts, "unusable": dict(self.asked.corpus.unusable)},
            "curve": [list(point) for point in trained.curve],
            "metrics": evaluate(trained.connector, self.frozen, self.asked, comparison.settings.batch),
        }
        _write_whole(json.dumps(result), comparison.job_file(job))
        return result


def refuse_short_context(settings: TrainSettings, frozen: Frozen) -> None:
    """Refuse captions that do not fit behind the visual tokens.

    Raises:
        CuveeError: with both numbers.
    """
    longest = getattr(frozen.language.model.config, "max_position_embeddings", None)
    needed = frozen.visual.parts[0].shape[1] + settings.max_tokens + 2
    if longest is not None and needed > longest:
        raise CuveeError(
            f"{needed} tokens (visual, begin, caption, end) do not fit the language model's {longest} positions; "
            "lower `visual_tokens` or `max_tokens`"
        )


def _write_whole(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
