"""Does the jobs of a comparison: the models loaded, the samples tokenised, one connector after another."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import xxhash

from schemas.errors import CuveeError
from stages.train.batches import Batches
from stages.train.comparison import EVALUATION, TARGET, VERSION, Comparison, Job, refuse_short_context
from stages.train.connector import save_connector
from stages.train.continual import REPLAY, Replayed
from stages.train.language_model import language_of
from stages.train.loop import Frozen, TrainResult, train, train_mixture
from stages.train.metrics.evaluation import Evaluation, Judged, judge
from stages.train.metrics.examination import Examination
from stages.train.ranks import ALONE, Ranks
from stages.train.samples import Corpus, corpus
from stages.train.text_only import TEXT


class Workbench:
    """The models loaded and the samples tokenised: does one job after another. Opened when all tokens are there."""

    def __init__(self, comparison: Comparison) -> None:
        """Load what every job shares.

        Raises:
            CuveeError: an arm without samples, too few held-out images, or a context too short for the captions.
        """
        self.comparison = comparison
        settings = comparison.settings
        language = language_of(settings, comparison.device)
        self.frozen = Frozen(language, comparison.visual())
        corpora = {
            name: corpus(draft, language.tokenize, self.frozen.visual.undecodable, settings.max_tokens)
            for name, draft in comparison.drafts.items()
        }
        self.asked = Evaluation.over(
            corpora.pop(EVALUATION), settings.generated, comparison.seed, comparison.held_sources
        )
        self.target = corpora.pop(TARGET, None)
        self.replay = Replayed(corpora.pop(REPLAY), settings.replay.share) if settings.replay else None
        self.text = Replayed(corpora.pop(TEXT), settings.text_only.share, TEXT) if settings.text_only else None
        self.corpora: dict[str, Corpus] = corpora
        if self.target is not None and not len(self.target):
            raise CuveeError("the target has no sample with a decodable image and a caption; set `aim: sources`")
        if self.replay is not None and not len(self.replay.corpus):
            raise CuveeError("`replay.shards` hold no sample with a decodable image and a caption; name other tars")
        if self.text is not None and not len(self.text.corpus):
            raise CuveeError("`text_only.shards` hold no sample with a caption; name other tars")
        if empty := sorted(name for name, samples in corpora.items() if not len(samples)):
            unusable = dict(corpora[empty[0]].unusable)
            raise CuveeError(f"arm {empty[0]!r} has no sample with a decodable image and a caption; found {unusable}")
        refuse_short_context(settings, self.frozen)

    @cached_property
    def _common(self) -> dict[str, Any]:
        comparison = self.comparison
        asked = self.asked.corpus.fingerprint
        replayed = {"replay": self.replay.corpus.fingerprint} if self.replay else {}
        replayed |= {"text_only": self.text.corpus.fingerprint} if self.text else {}
        return {
            "version": VERSION,
            "settings": comparison.settings.identity(),
            "seed": comparison.seed,
            "evaluation": asked,
            **replayed,
        }

    def fingerprint(self, job: Job, *, alone: bool = False) -> str:
        """What a job's result depends on, as 16 hex digits; `alone`: but for how many workers share it."""
        common = {**self._common, "settings": {**self._common["settings"]}}
        if alone:
            common["settings"].pop("workers_per_run", None)
        facts = {**common, "data": self.corpora[job.arm].fingerprint, "number": job.seed}
        if "groups" in self.comparison.settings.metrics:
            facts |= {"held_sources": self.asked.sources}
        if self._is_steered(job):
            facts |= {"sources": Batches(self.frozen, self.sources).fingerprint}
            facts |= {"target": self.target.fingerprint if self.target else None}
        return xxhash.xxh3_64_hexdigest(json.dumps(facts, sort_keys=True).encode())

    def pending(self) -> list[Job]:
        """Jobs without a finished result for just these samples, settings and models."""
        return [job for job in self.comparison.jobs() if self._finished(job) != self.fingerprint(job)]

    def _finished(self, job: Job) -> str | None:
        file = self.comparison.job_file(job)
        return str(json.loads(file.read_text())["fingerprint"]) if file.exists() else None

    def do(self, job: Job, ranks: Ranks = ALONE) -> dict[str, Any]:
        """Train, evaluate, save the connector, and write the job's result; of several ranks, the first does."""
        comparison, fingerprint = self.comparison, self.fingerprint(job)
        samples = self.corpora[job.arm]
        # Another number of ranks goes on from the same checkpoint.
        checkpoint = comparison.folder / "checkpoints" / f"{job.name}-{self.fingerprint(job, alone=True)}.safetensors"
        trained = self._trained(job, f"{comparison.seed}/{job.seed}", checkpoint, ranks)
        if not ranks.is_first:
            return {}
        save_connector(trained.bridge, trained.card, comparison.folder / "connectors" / job.name)
        judged = judge(trained.bridge, self.frozen, self.asked, comparison.settings.batch)
        result = {
            "arm": job.arm,
            "seed": job.seed,
            "fingerprint": fingerprint,
            "device": comparison.device,
            "samples": len(samples),
            "distinct_images": len(set(samples.images)),
            "feature_bytes": len(set(samples.images)) * self.frozen.visual.bytes_per_image,
            "unusable": dict(samples.unusable),
            "evaluation": {**self.asked.facts, "unusable": dict(self.asked.corpus.unusable)},
            "curve": [list(point) for point in trained.curve],
            "log": dict(trained.log),
            "metrics": judged.metrics,
            "exact_captions": judged.exact,
            "captions": self._captions(judged),
        }
        if wanted := comparison.settings.metrics:
            found = self._examination(job.arm, trained).found(wanted)
            result["metrics"] |= found.pop("metrics", {})
            result["examined"] = found
        if self._is_steered(job):
            said = {"weights": dict(trained.weights), "drawn": dict(trained.drawn), "updates": list(trained.updates)}
            result["schedule"] = said
        if self.replay is not None:
            result["replay"] = self.replay.facts(trained.drawn)
        if self.text is not None:
            result["text_only"] = self.text.facts(trained.drawn)
        _write_whole(json.dumps(dict(trained.speed)), comparison.speed_file(job))
        _write_whole(json.dumps(result), comparison.job_file(job))
        return result

    def _captions(self, judged: Judged) -> list[dict[str, Any]]:
        """What was generated, with the true captions: samples in the order of a hash, not of how well they went."""
        asked, spell = self.asked.corpus, self.frozen.language.tokenizer.decode
        return [
            {
                "key": asked.keys[each.sample],
                "image": asked.images[each.sample],
                "written": spell(list(each.ids), skip_special_tokens=True),
                "true": spell(asked.caption(each.sample), skip_special_tokens=True),
                "distance": each.distance,
            }
            for each in judged.written
        ]

    def _is_steered(self, job: Job) -> bool:
        return self.comparison.steered is not None and job.arm == self.comparison.steered[0]

    @cached_property
    def sources(self) -> dict[str, Corpus]:
        """The steered arm's samples by the source they come from.

        Raises:
            CuveeError: members.parquet lacks a sample.
        """
        assert self.comparison.steered is not None
        arm, members = self.comparison.steered
        return self.corpora[arm].parts(self._named(arm, members))

    def _named(self, arm: str, members: str) -> list[str]:
        """The source of each of an arm's samples."""
        table = pq.read_table(members, columns=["exported_key", "source"])
        source = dict(zip(table["exported_key"].to_pylist(), table["source"].to_pylist(), strict=True))
        samples = self.corpora[arm]
        if missing := [key for key in samples.keys if key not in source]:
            raise CuveeError(f"{members} does not name sample {missing[0]!r} of arm {arm!r}; export it again")
        return [source[key] for key in samples.keys]

    def _examination(self, arm: str, trained: TrainResult) -> Examination:
        listed, batch = self.comparison.listed.get(arm), self.comparison.settings.batch
        sources = self._named(arm, listed) if listed else []
        return Examination(trained.bridge, self.frozen, self.asked, self.corpora[arm], sources, batch)

    def _trained(self, job: Job, seed: str, checkpoint: Path, ranks: Ranks) -> TrainResult:
        settings = self.comparison.settings
        if not self._is_steered(job):
            shared: dict[str, Any] = {
                "replay": self.replay,
                "text": self.text,
                "checkpoint": checkpoint,
                "ranks": ranks,
            }
            return train(settings, self.frozen, self.corpora[job.arm], seed, **shared)
        assert settings.schedule is not None
        return train_mixture(
            settings,
            self.frozen,
            self.sources,
            seed,
            settings.schedule,
            targets={"target": self.target} if self.target else None,
            replay=self.replay,
            text=self.text,
            checkpoint=checkpoint,
            ranks=ranks,
        )


def _write_whole(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
