"""One training run: what is trained, optimizer, sampler and weights, step by step; it can be killed at any time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from schemas.errors import CuveeError
from stages.train.accumulation import Accumulation, Passed
from stages.train.batches import Batches
from stages.train.budget import Meter, Stand
from stages.train.checkpoint import Belonging, Progress, load_checkpoint, save_checkpoint
from stages.train.connector import ConnectorCard, load_alike
from stages.train.continual import Beside
from stages.train.effort import Effort
from stages.train.journal import WINDOWS
from stages.train.lookahead import Lookahead
from stages.train.objective import Objective
from stages.train.optimizers.choice import optimizer_of
from stages.train.options.averaging import Averaged
from stages.train.options.parts import started_bridge
from stages.train.precision import numerics
from stages.train.ranks import ALONE, Ranks
from stages.train.rates import rate
from stages.train.reference_time import read_table, shape_name
from stages.train.sampler import MixtureSampler
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed, Steered

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge
    from stages.train.loop import Frozen

NOTHING = Beside()
DECIDING = (
    "learning_rate", "warmup", "floor", "weight_decay", "batch", "max_tokens", "infinite", "rate", "optimizer", "betas",
    "precision", "micro_batch", "compile", "templates", "pack", "share_prefix",
)  # fmt: skip
"""Settings that a checkpoint can only be continued with."""


def connector_card(settings: TrainSettings, frozen: "Frozen", seed: str) -> ConnectorCard:
    """The connector that every arm starts from with this seed."""
    return ConnectorCard(
        connector=settings.connector.resolved(settings.hidden, frozen.visual.width, frozen.language.width),
        vision_width=frozen.visual.width,
        language_width=frozen.language.width,
        visual_tokens=settings.visual_tokens,
        grid=frozen.visual.grid,
        vision=settings.vision_identity,
        vision_layer=settings.vision_layer,
        language_model=settings.language_identity,
        inject_layer=settings.inject_layer,
        options=settings.recorded,
        template=settings.templates[0],
        init_seed=xxhash.xxh3_64_intdigest(f"connector/{seed}".encode()) >> 1,
    )


def meter_of(settings: TrainSettings, frozen: "Frozen") -> Meter:
    """What a run has to spend, and what a step costs.

    Raises:
        RecipeError: the reference table has no such step, or is not one.
    """
    budget = settings.budget
    if budget.is_whole_steps:
        return Meter.of(budget, settings.steps, None)
    seconds = None
    if settings.reference_table is not None:
        config = frozen.language.model.config.get_text_config()
        seq = settings.connector.tokens(frozen.visual.grid) + settings.max_tokens + 1
        table = read_table(Path(settings.reference_table))
        seconds = table.seconds(shape_name(config), config.num_hidden_layers, seq, settings.batch, "train")
    return Meter.of(budget, None, seconds)


@dataclass
class Run:
    """One connector on its way."""

    settings: TrainSettings
    sources: Batches
    bridge: "Bridge"
    optimizer: "torch.optim.Optimizer"
    sampler: MixtureSampler
    steering: Fixed | Steered
    beside: Beside
    belonging: Belonging
    progress: Progress
    meter: Meter
    ranks: Ranks
    effort: Effort
    objective: Objective | None = None
    average: Averaged | None = None
    lookahead: Lookahead | None = None
    """None: the images' tokens are there."""

    @classmethod
    def start(
        cls,
        settings: TrainSettings,
        sources: Batches,
        seed: str,
        steering: Fixed | Steered,
        beside: Beside = NOTHING,
        ranks: Ranks = ALONE,
    ) -> "Run":
        """Before the first step, with the weights and the order that `seed` decides."""
        frozen = sources.frozen
        card = connector_card(settings, frozen, seed)
        every = sources.beside(beside.corpora)
        bridge = started_bridge(settings, card, every)
        if settings.start is not None:
            bridge, card = load_alike(Path(settings.start), card)
        bridge = bridge.to(frozen.language.device)
        objective = Objective.of(settings, every, bridge, card)
        optimizer = optimizer_of(settings, bridge.parameters())
        keys = {name: corpus.keys for name, corpus in every.corpora.items()}
        sampler = MixtureSampler(keys, settings.batch, seed)
        meter = meter_of(settings, frozen)
        facts: dict[str, Any] = {"seed": seed, "weights": steering.identity, "budget": vars(meter)}
        facts |= beside.identity
        facts |= settings.model_dump(mode="json", include={*DECIDING, *settings.chosen})
        belonging = Belonging(card, sources.fingerprint, facts)
        return cls(
            settings,
            sources,
            bridge,
            optimizer,
            sampler,
            steering,
            beside,
            belonging,
            progress=Progress(sampler.state, steering.state),
            meter=meter,
            ranks=ranks,
            effort=Effort.of(frozen.language, settings.inject_layer, settings.precision),
            objective=objective,
            average=settings.average.start() if settings.average else None,
            lookahead=Lookahead(keys, settings.batch, seed, ahead) if (ahead := frozen.visual.foresees) else None,
        )

    def to_the_end(self, checkpoint: Path | None, on_step: Callable[[int, float], None] | None) -> None:
        """Every step that is left; the checkpoint of the last one stays."""
        if checkpoint is not None and self._is_there(checkpoint):
            self._resume(checkpoint)
        try:
            with self.ranks.shared(self.bridge):
                self._go(checkpoint, on_step)
        finally:
            self.sources.frozen.visual.expect(())

    def _go(self, checkpoint: Path | None, on_step: Callable[[int, float], None] | None) -> None:
        while self.progress.used < self.meter.total:
            loss = self._step()
            is_due = self.progress.step % self.settings.checkpoint_steps == 0
            if checkpoint is not None and (is_due or self.progress.used >= self.meter.total):
                self._save(checkpoint)
            if on_step is not None:
                on_step(self.progress.step, loss)
        if self.average is not None:
            self.bridge.load_state_dict(self.average.mean(self.bridge))

    def _is_there(self, checkpoint: Path) -> bool:
        """Whether the run goes on from it, which its ranks must agree on.

        Raises:
            CuveeError: some see it and some do not.
        """
        seen = self.ranks.all(checkpoint.exists())
        if any(seen) != all(seen):
            raise CuveeError(
                f"{sum(seen)} of {len(seen)} workers of a run see {checkpoint}; its folder must be shared by all nodes"
            )
        return seen[0]

    def _save(self, checkpoint: Path) -> None:
        of = self.belonging, self.average, self.ranks
        save_checkpoint(checkpoint, self.bridge, self.optimizer, self.progress, *of)

    def _resume(self, checkpoint: Path) -> None:
        of = self.belonging, self.average, self.ranks
        self.progress = load_checkpoint(checkpoint, self.bridge, self.optimizer, *of)
        self.sampler.state = self.progress.sampler
        self.steering.resume(self.progress.steering)

    def _step(self) -> float:
        began, clock = perf_counter(), self.sources.frozen.clock
        waited = clock.waited
        drawn_from, drawn = self._drawn()
        forward = partial(numerics, self.settings.precision, self.sources.frozen.language.device)
        accumulation = Accumulation(self.ranks, self.settings.micro_batch, forward)
        try:
            passed = accumulation.gradient(drawn_from, self.bridge, drawn)
        except CuveeError as error:
            raise CuveeError(f"step {self.progress.step}: {error}") from error
        stand = self.meter.stand(self.progress.used, passed.counts.visual + passed.counts.text)
        self._rated(rate_now := rate(self.settings, stand))
        self.optimizer.step()
        if self.average is not None:
            self.average.after(self.bridge, self.progress.step + 1, final=stand.is_last)
        self._watched(drawn_from, drawn, passed)
        self.progress.sampler, self.progress.steering = self.sampler.state, self.steering.state
        self.progress.record(passed.loss * passed.weight, passed.weight, stand)
        self.progress.journal.see(drawn, passed, perf_counter() - began, clock.waited - waited)
        self._written(stand, rate_now)
        return passed.loss

    def _drawn(self) -> tuple[Batches, list[tuple[str, int]]]:
        """The step's batch, and what it is drawn from."""
        rate_now = rate(self.settings, self.meter.stand(self.progress.used, 0))
        self._rated(rate_now)
        weights = self.steering.before(self.bridge, self.optimizer, self.progress.step, rate_now)
        if isinstance(self.steering, Steered):  # what was measured may differ between ranks in its last bits
            weights = np.asarray(self.ranks.from_first(weights))
        weights = self.beside.among(weights, self.sampler.names)
        drawn, drawn_from = self.sampler.ids(weights), self.sources.beside(self.beside.corpora)
        if self.lookahead is not None:
            coming = [drawn, *self.lookahead.after(drawn, self.sampler.state, weights)]
            mine = (drawn_from.corpora[name].images[i] for batch in coming for name, i in self.ranks.share(batch))
            self.sources.frozen.visual.expect(mine)
        turn = f"{self.belonging.schedule['seed']}/{self.progress.step}"
        return drawn_from.under(self.objective).at(turn), drawn

    def _rated(self, rate_now: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_now

    def _watched(self, drawn_from: Batches, drawn: list[tuple[str, int]], passed: Passed) -> None:
        watch, step = self.progress.watch, self.progress.step
        watch.see(step, passed.loss, partial(drawn_from.told, drawn), passed.mean_each)
        names = [name for name, one in self.bridge.named_parameters() if "rms" in self.optimizer.state.get(one, {})]
        if names:
            import torch

            trained = dict(self.bridge.named_parameters())
            measured = torch.stack([self.optimizer.state[trained[name]]["rms"] for name in names]).tolist()
            watch.surprise(step, dict(zip(names, measured, strict=True)))

    def _written(self, stand: Stand, rate_now: float) -> None:
        """Close the journal's window where one ends."""
        journal = self.progress.journal
        if stand.marks(WINDOWS):
            used = min(1.0, self.progress.used / self.meter.total)
            journal.close(self.progress.step, used, rate_now, self.effort.of_window(journal))
