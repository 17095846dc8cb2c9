"""One training run: connector, optimizer, sampler and weights, step by step; it can be killed at any time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from schemas.errors import CuveeError
from stages.train.batches import Batches
from stages.train.checkpoint import Belonging, Progress, load_checkpoint, save_checkpoint
from stages.train.connector import ConnectorCard, load_alike
from stages.train.continual import REPLAY, Replayed
from stages.train.objective import Objective
from stages.train.options.averaging import Averaged
from stages.train.options.parts import started_bridge
from stages.train.rates import rate
from stages.train.sampler import MixtureSampler
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed, Steered

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge
    from stages.train.loop import Frozen


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


@dataclass
class Run:
    """One connector on its way."""

    settings: TrainSettings
    sources: Batches
    bridge: "Bridge"
    optimizer: "torch.optim.Optimizer"
    sampler: MixtureSampler
    steering: Fixed | Steered
    replay: Replayed | None
    belonging: Belonging
    progress: Progress
    objective: Objective | None = None
    average: Averaged | None = None

    @classmethod
    def start(
        cls,
        settings: TrainSettings,
        sources: Batches,
        seed: str,
        steering: Fixed | Steered,
        replay: Replayed | None = None,
    ) -> "Run":
        """Before the first step, with the weights and the order that `seed` decides."""
        import torch

        card = connector_card(settings, sources.frozen, seed)
        every = sources if replay is None else sources.beside(REPLAY, replay.corpus)
        bridge = started_bridge(settings, card, every)
        if settings.start is not None:
            bridge, card = load_alike(Path(settings.start), card)
        bridge = bridge.to(sources.frozen.language.device)
        objective = Objective.of(settings, every, bridge, card)
        decay, peak = settings.weight_decay, settings.learning_rate
        optimizer = torch.optim.AdamW(bridge.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=decay)
        keys = {name: corpus.keys for name, corpus in sources.corpora.items()}
        if replay is not None:
            keys[REPLAY] = replay.corpus.keys
        sampler = MixtureSampler(keys, settings.batch, seed)
        names = {"learning_rate", "warmup", "floor", "weight_decay", "batch", "max_tokens", "infinite"}
        names |= set(settings.chosen)
        facts = {"steps": settings.steps, "seed": seed, "weights": steering.identity}
        if replay is not None:
            facts["replay"] = [replay.share, replay.corpus.fingerprint]
        belonging = Belonging(card, sources.fingerprint, {**facts, **settings.model_dump(mode="json", include=names)})
        progress = Progress(0, [], [0.0, 0.0], sampler.state, steering.state)
        average = settings.average.start() if settings.average else None
        return cls(
            settings, sources, bridge, optimizer, sampler, steering, replay, belonging, progress, objective, average
        )

    def to_the_end(self, checkpoint: Path | None, on_step: Callable[[int, float], None] | None) -> None:
        """Every step that is left; the checkpoint of the last one stays."""
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
        steps, often = self.settings.steps, self.settings.checkpoint_steps
        while self.progress.step < steps:
            loss = self._step()
            if checkpoint is not None and (self.progress.step % often == 0 or self.progress.step == steps):
                save_checkpoint(checkpoint, self.bridge, self.optimizer, self.progress, self.belonging, self.average)
            if on_step is not None:
                on_step(self.progress.step, loss)
        if self.average is not None:
            self.bridge.load_state_dict(self.average.mean(self.bridge))

    def _resume(self, checkpoint: Path) -> None:
        self.progress = load_checkpoint(checkpoint, self.bridge, self.optimizer, self.belonging, self.average)
        self.sampler.state = self.progress.sampler
        self.steering.resume(self.progress.steering)

    def _step(self) -> float:
        import torch

        done = self.progress.step
        rate_now = rate(self.settings, done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_now
        weights, drawn_from = self.steering.before(self.bridge, self.optimizer, done, rate_now), self.sources
        if self.replay is not None:
            weights = self.replay.among(weights, self.sampler.names)
            drawn_from = self.sources.beside(REPLAY, self.replay.corpus)
        drawn = self.sampler.ids(weights)
        turn = f"{self.belonging.schedule['seed']}/{done}"
        losses = drawn_from.under(self.objective).at(turn).losses(self.bridge, drawn)
        loss, tokens = losses.mean(), len(losses)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CuveeError(
                f"the loss is {value} at step {done}; lower `learning_rate` or look at samples {drawn_from.keys(drawn)}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.after(self.bridge, done + 1, final=done + 1 == self.settings.steps)
        self.progress.sampler, self.progress.steering = self.sampler.state, self.steering.state
        self.progress.record(value * tokens, tokens, self.settings.steps)
        return value
