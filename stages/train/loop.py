"""Training a connector between two frozen models: a plain function, the same inside Ray and out of it.

One corpus, or several in given shares of every batch (`stages.train.sampler`).

Loss: cross entropy over caption tokens, averaged over the batch's label tokens; the visual prefix has none.
Optimizers stand in `stages.train.optimizers`, their rate in `stages.train.rates`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.schedule import Schedule
from stages.train.batches import ONLY, Batches
from stages.train.connector import ConnectorCard
from stages.train.continual import Beside, Replayed
from stages.train.hearing import Manner
from stages.train.image_features import ImageFeatures
from stages.train.journal import Clock
from stages.train.language_model import LanguageModel, one_thread
from stages.train.layer_modes import layer_modes
from stages.train.ranks import ALONE, Ranks
from stages.train.run import Run
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed, Steered

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frozen:
    """What training does not change: the language model and the images' tokens."""

    language: LanguageModel
    visual: ImageFeatures
    clock: Clock = field(default_factory=Clock, compare=False)

    def embeddings(self, images: list[str]) -> "torch.Tensor":
        """(n, tokens, width) visual tokens of images by hash, in fp32 on the language model's device."""
        import torch

        began = perf_counter()
        compute = self.visual.read(images)
        self.clock.waited += perf_counter() - began
        return torch.from_numpy(compute()).to(self.language.device).float()


@dataclass(frozen=True)
class TrainResult:
    """A trained connector and how its loss fell."""

    bridge: "Bridge"
    card: ConnectorCard
    curve: tuple[tuple[int, float], ...]
    """(steps done, mean loss in nats per label token since the point before)."""
    drawn: Mapping[str, int]
    """Samples drawn per source, repeats counted."""
    weights: Mapping[str, float]
    """Share per source: the given one, or what the schedule recommends for a run of fixed weights."""
    updates: tuple[dict[str, Any], ...] = ()
    """Of a schedule, what was measured and answered, update by update."""
    log: Mapping[str, Any] = field(default_factory=dict)
    """What was drawn and lost window by window, loss spikes and gradients' surprises; the same for the same run."""
    speed: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, rates, share of the time spent waiting for data; on a GPU also MFU and memory. No two runs agree."""


def train(
    settings: TrainSettings,
    frozen: Frozen,
    corpus: Corpus,
    seed: str,
    *,
    checkpoint: Path | None = None,
    replay: Replayed | None = None,
    text: Replayed | None = None,
    ranks: Ranks = ALONE,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train one connector on one corpus: `train_mixture` with a single source.

    Raises:
        CuveeError: no samples, a checkpoint of another run, or a loss that is not finite.
    """
    if not len(corpus):
        raise CuveeError("there is no sample to train on; every one lacks a decodable image or a caption")
    one = np.ones(1)
    corpora = {ONLY: corpus}
    more: dict[str, Any] = {"replay": replay, "text": text, "checkpoint": checkpoint, "ranks": ranks}
    more |= {"on_step": on_step}
    return train_mixture(settings, frozen, corpora, seed, one, **more)


def train_mixture(
    settings: TrainSettings,
    frozen: Frozen,
    corpora: Mapping[str, Corpus],
    seed: str,
    weights: Doubles | Schedule,
    *,
    targets: Mapping[str, Corpus] | None = None,
    replay: Replayed | None = None,
    text: Replayed | None = None,
    checkpoint: Path | None = None,
    ranks: Ranks = ALONE,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train one connector on several corpora, each batch mixed by the weights.

    Args:
        settings: budget, batch, rates.
        frozen: the models around it; they are in eval mode and get no gradient.
        corpora: the samples of each source.
        seed: decides the initial weights, the order of samples and a schedule's probes, and nothing else does.
        weights: (S,) shares of the samples drawn, >= 0, summing to 1, sources by name; or a schedule that sets them
            on the way. One that compares with a reference connector has it trained before, on as many steps.
        targets: what a schedule should make the connector good at, if it aims at a target; default: the sources.
        replay: old samples that take their share of every batch beside the sources.
        text: texts without images that do so, too.
        checkpoint: continued from when it exists, rewritten every `settings.checkpoint_steps` steps, removed at the
            end; a reference's stand beside it. A continued run equals an uninterrupted one bit for bit on a CPU, and to
            rounding where another number of ranks goes on.
        ranks: the processes that share this run; each of them calls this function with the same arguments.
        on_step: called with (steps done, loss in nats per label token).

    Raises:
        CuveeError: no source, one without samples, weights off the simplex, a checkpoint of another run, or a loss
            that is not finite.
    """
    manner = Manner.of(settings, frozen.language)
    sources = Batches(frozen, corpora, manner=manner)
    with one_thread(), layer_modes(settings, frozen.language) as modes:
        if isinstance(weights, Schedule):
            reference = _reference(weights, settings, sources, seed, checkpoint, ranks)
            rows = Batches(frozen, targets, manner=manner) if targets and weights.aim == "target" else None
            steering: Fixed | Steered = Steered.start(weights, sources, rows, settings.steps, seed, reference)
        else:
            steering = Fixed(weights, len(corpora))
        run = Run.start(settings, sources, seed, steering, Beside.of(replay, text), ranks=ranks)
        run.to_the_end(checkpoint, on_step)
    if checkpoint is not None and ranks.is_first:
        for finished in (checkpoint, _beside(checkpoint)):
            finished.unlink(missing_ok=True)
    final = dict(zip(sources.names, steering.final.tolist(), strict=True))
    progress, bridge, card = run.progress, run.bridge, run.belonging.card
    log = {"steps": progress.step, "windows": progress.journal.windows, **progress.watch.facts}
    speed = {**progress.journal.speed, **modes}
    curve, drawn = tuple(progress.curve), run.sampler.drawn
    return TrainResult(bridge, card, curve, drawn, final, steering.updates, log, speed)


def _beside(checkpoint: Path) -> Path:
    """Where the reference of an unfinished run lies: its checkpoint, in the end its weights."""
    return checkpoint.with_name(f"reference-{checkpoint.name}")


def _reference(
    schedule: Schedule, settings: TrainSettings, sources: Batches, seed: str, checkpoint: Path | None, ranks: Ranks
) -> "Bridge | None":
    """The finished connector of fixed weights that excess losses are measured against; None where none is asked for."""
    if (which := schedule.wants().excess) is None:
        return None
    count = len(sources.names)
    weights = sources.natural if which == "natural" else np.full(count, 1 / count)
    run = Run.start(settings, sources, seed, Fixed(weights, count), ranks=ranks)
    run.to_the_end(_beside(checkpoint) if checkpoint else None, None)
    return run.bridge.requires_grad_(False)
