"""The connector as pilot: trained by the settings of `train`, on visual tokens computed once for all trials."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.cluster import Cluster
from pipeline.score import Progress
from pipeline.sidecars import read_table, write_table
from pipeline.trials.pilot import Measured, Trial
from pipeline.trials.split import Split
from pipeline.trials.visual_tokens import compute_tokens
from schemas.columns import CAPTION
from schemas.errors import CuveeError
from stages.train.budget import Budget
from stages.train.comparison import VERSION, refuse_short_context
from stages.train.language_model import language_of
from stages.train.loop import Frozen, train_mixture
from stages.train.metrics.evaluation import evaluate_sources
from stages.train.samples import Corpus, Draft, Pair, corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

DRAWN, HELD = "drawn", "held"


@dataclass(frozen=True)
class ConnectorPilot:
    """What `train` of the recipe says; its own budget and number of seeds are not read."""

    settings: TrainSettings
    kind: str = "connector"

    def drawn(self, budget: int) -> int:
        """Whole batches."""
        return _with(self.settings, budget).steps * self.settings.batch

    def identity(self, split: Split) -> Any:
        """Settings, with models by content."""
        left_out = ("budget", "seeds")
        settings = {name: value for name, value in self.settings.identity().items() if name not in left_out}
        return {"version": VERSION, **settings}

    def prepare(self, split: Split, folder: Path, cluster: Cluster, progress: Progress) -> tuple["ConnectorBench", int]:
        """List captions and images, and compute the visual tokens that are missing."""
        resolved, settings = split.chosen.table.resolved, self.settings.located()
        features = resolved.workspace.fit("visual-tokens")
        tokens = settings.feature_key.folder(features)
        gpus = min(1, compute_tokens(split, settings, tokens, cluster, progress))
        path = folder / "pairs.parquet"
        if not path.exists():
            write_table(_listed(split).to_arrow(), path)
        plain = settings.model_dump(mode="json")
        bench = ConnectorBench(
            plain, str(path.resolve()), str(tokens.resolve()), str((folder / "checkpoints").resolve()),
            resolved.recipe.seed, "cuda" if gpus else "cpu",
        )  # fmt: skip
        return bench, gpus


def _with(settings: TrainSettings, budget: int) -> TrainSettings:
    return settings.model_copy(update={"budget": Budget.model_validate({"samples": budget})})


@dataclass(frozen=True)
class ConnectorBench:
    """Trains connectors between models that are loaded once."""

    settings: dict[str, Any]
    pairs: str
    tokens: str
    checkpoints: str
    seed: int
    device: str

    def open(self) -> Callable[[Trial], Measured]:
        """Load the language model, tokenise the captions, map the visual tokens.

        Raises:
            CuveeError: a source without a usable pair, or captions that do not fit.
        """
        settings = TrainSettings.model_validate(self.settings)
        language = language_of(settings, self.device)
        frozen = Frozen(language, VisualTokens.open(Path(self.tokens)))
        corpora, held = self._corpora(DRAWN, settings, frozen), self._corpora(HELD, settings, frozen)
        refuse_short_context(settings, frozen)

        def do(trial: Trial) -> Measured:
            made = _with(settings, trial.budget)
            weights = np.array([trial.shares[name] for name in sorted(corpora)])
            unfinished = Path(self.checkpoints) / f"{trial.name}-{trial.address}.safetensors"
            run = f"{self.seed}/{trial.seed}"
            trained = train_mixture(made, frozen, corpora, run, weights, checkpoint=unfinished)
            asked = {"batch": settings.batch, "generated": settings.generated, "seed": self.seed}
            return Measured(trained.drawn, evaluate_sources(trained.bridge, frozen, held, **asked))

        return do

    def _corpora(self, part: str, settings: TrainSettings, frozen: Frozen) -> dict[str, Corpus]:
        drafts: dict[str, Draft] = {}
        for row in read_table(Path(self.pairs)).to_pylist():
            if row["part"] == part:
                pair = Pair(row["uid"], b"", row["caption"])
                drafts.setdefault(row["name"], Draft()).add(pair, row["image_hash"])
        found = {}
        for name, draft in sorted(drafts.items()):
            found[name] = corpus(draft, frozen.language.tokenize, frozen.visual.undecodable, settings.max_tokens)
            if not len(found[name]):
                raise CuveeError(
                    f"{name!r} ({part}) has no pair with a decodable image and a caption; found "
                    f"{dict(found[name].unusable)}: give it captions, or leave it out"
                )
        return found


def _listed(split: Split) -> pl.DataFrame:
    """(part, name, uid, image_hash, caption) of every pair, in that order."""
    table = split.chosen.table
    roles = table.samples["role"].unique().sort()
    captions = pl.concat([table.scores(role, [CAPTION.name]).select("uid", CAPTION.name) for role in roles])
    parts = [
        rows.select(pl.lit(part).alias("part"), pl.lit(name).alias("name"), "uid", "image_hash")
        for part, frames in ((DRAWN, split.drawn_from), (HELD, split.held))
        for name, rows in frames.items()
    ]
    return pl.concat(parts).join(captions.collect(), on="uid", how="left").sort("part", "name", "uid")
