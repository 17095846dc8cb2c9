"""Proxy connectors for mixers that learn weights from training: trained on survivors, measured on what is held out.

Pairs are split as pilots split them. Half of the target's, by image, is what a schedule aims at; a connector's loss is
that on the other half, or, without a target, on the held-out pairs of the sources. Visual tokens are computed once, on
the cluster; connectors are small and trained here, one after another. A finished one is a file, so that a killed run
goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.cluster import Cluster
from pipeline.fingerprints import fingerprint
from pipeline.proof import settings
from pipeline.score import Progress
from pipeline.select import Selected
from pipeline.sidecars import read_json, write_json
from pipeline.trials.split import TARGET, Split, hold_out
from pipeline.trials.visual_tokens import compute_tokens
from schemas.columns import CAPTION
from schemas.errors import CuveeError
from schemas.recipe import Trials
from stages.noise import uniform_noise
from stages.schedule import Doubles, Rehearsal, Schedule
from stages.train.budget import Budget
from stages.train.comparison import VERSION, refuse_short_context
from stages.train.language_model import language_of
from stages.train.loop import Frozen, train_mixture
from stages.train.metrics.evaluation import evaluate_sources
from stages.train.samples import Corpus, Draft, Pair, corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

HELD_OUT = 0.2
"""Share of each source's images that no proxy is trained on."""
SPLIT = Trials(count=2, budgets=(1, 2), held_out=HELD_OUT)
LEFT_OUT = ("schedule", "replay", "text_only", "start", "seeds", "generated")
"""Settings under `train` that are the final connector's alone."""


@dataclass(frozen=True)
class ConnectorProxy:
    """Proxies over one selection."""

    chosen: Selected
    cluster: Cluster
    progress: Progress

    @cached_property
    def settings(self) -> TrainSettings:
        """Those of `train`, without what is the final connector's."""
        given = settings(self.chosen.table.resolved).located()
        alone: dict[str, Any] = {"schedule": None, "replay": None, "text_only": None, "start": None}
        return given.model_copy(update=alone)

    @property
    def identity(self) -> Any:
        """Settings, with models by content; the target that is seen."""
        facts = {name: value for name, value in self.settings.identity().items() if name not in LEFT_OUT}
        return [VERSION, HELD_OUT, facts, self.chosen.target["uid"].sort().to_list()]

    def train(self, weights: Doubles | Schedule, seed: int, steps: int | None) -> Rehearsal:
        """One connector, or what is known of it."""
        how = _identity(weights) if isinstance(weights, Schedule) else weights.tolist()
        path = self._folder / f"{fingerprint([how, seed, steps])}.json"
        if not path.exists():
            found = self._trained(weights, seed, steps, path.with_suffix(".safetensors"))
            lines = {"weights": found.weights.tolist(), "losses": found.losses, "updates": list(found.updates)}
            write_json(lines, path)
        known = read_json(path)
        return Rehearsal(np.array(known["weights"], np.float64), known["losses"], tuple(known["updates"]))

    @cached_property
    def _folder(self) -> Path:
        resolved = self.chosen.table.resolved
        facts = [self.chosen.chain, self.identity, resolved.recipe.seed]
        return resolved.workspace.fit(f"proxy-{fingerprint(facts)}")

    def _trained(self, weights: Doubles | Schedule, seed: int, steps: int | None, checkpoint: Path) -> Rehearsal:
        bench = self._bench
        made = self.settings.sized(sum(map(len, bench.sources.values())))
        if steps is not None:
            made = made.model_copy(update={"budget": Budget.model_validate({"steps": steps})})
        run = f"{self.chosen.table.resolved.recipe.seed}/proxy/{seed}"
        trained = train_mixture(
            made, bench.frozen, bench.sources, run, weights, targets=bench.aim or None, checkpoint=checkpoint
        )
        found = evaluate_sources(trained.bridge, bench.frozen, bench.held, batch=made.batch, generated=0)
        final = np.array([trained.weights[name] for name in sorted(bench.sources)])
        return Rehearsal(final, {name: line["nll"] for name, line in found.items()}, trained.updates)

    @cached_property
    def _bench(self) -> "Bench":
        """Models loaded, visual tokens computed, captions tokenised: done when the first connector is missing."""
        split, made = hold_out(self.chosen, SPLIT), self.settings
        features = self.chosen.table.resolved.workspace.fit("visual-tokens")
        tokens = made.feature_key.folder(features)
        compute_tokens(split, made, tokens, self.cluster, self.progress)
        frozen = Frozen(language_of(made, "cpu"), VisualTokens.open(tokens))
        refuse_short_context(made, frozen)
        return Bench.over(split, frozen, made.max_tokens)


def _identity(schedule: Schedule) -> Any:
    return [schedule.version, schedule.model_dump(mode="json")]


@dataclass(frozen=True)
class Bench:
    """What every proxy shares."""

    frozen: Frozen
    sources: dict[str, Corpus]
    aim: dict[str, Corpus]
    """What a schedule aims at; empty without a target."""
    held: dict[str, Corpus]
    """What connectors are measured on."""

    @classmethod
    def over(cls, split: Split, frozen: Frozen, max_tokens: int) -> "Bench":
        """Tokenise the captions of a split.

        Raises:
            CuveeError: a part without a usable pair.
        """
        seed = split.chosen.table.resolved.recipe.seed
        aim, measured = {}, {name: rows for name, rows in split.held.items() if name != TARGET}
        if TARGET in split.held:
            rows = split.held[TARGET]
            near = pl.Series(uniform_noise(rows["image_hash"].to_list(), seed, "proxy aim") < 0.5)
            aim, measured = {TARGET: rows.filter(near)}, {TARGET: rows.filter(~near)}
        captions = _captions(split)
        parts = [
            {name: _corpus(name, rows, captions, frozen, max_tokens) for name, rows in part.items()}
            for part in (split.drawn_from, aim, measured)
        ]
        return cls(frozen, *parts)


def _captions(split: Split) -> dict[str, str | None]:
    table = split.chosen.table
    uids = pl.concat([*split.drawn_from.values(), *split.held.values()]).select("uid").unique().lazy()
    roles = table.samples["role"].unique().sort()
    lines = pl.concat([table.scores(role, [CAPTION.name]).select("uid", CAPTION.name) for role in roles])
    return dict(lines.join(uids, on="uid", how="semi").collect().iter_rows())


def _corpus(
    name: str, rows: pl.DataFrame, captions: Mapping[str, str | None], frozen: Frozen, max_tokens: int
) -> Corpus:
    draft = Draft()
    for uid, image_hash in rows.select("uid", "image_hash").iter_rows():
        draft.add(Pair(uid, b"", captions[uid]), image_hash)
    found = corpus(draft, frozen.language.tokenize, frozen.visual.undecodable, max_tokens)
    if not len(found):
        raise CuveeError(
            f"{name!r} has no pair with a decodable image and a caption for a proxy connector; found "
            f"{dict(found.unusable)}: give it captions, or leave it out"
        )
    return found
