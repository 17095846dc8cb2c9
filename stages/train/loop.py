"""Training a connector between two frozen models: a plain function, the same inside Ray and out of it.

One corpus, or several in given shares of every batch (`stages.train.sampler`).

Loss: cross entropy over caption tokens, averaged over the batch's label tokens; the visual prefix has none.
AdamW with betas (0.9, 0.95) and, by default, the rate 3e-4 with 3 % warm-up and a cosine that ends inside the budget:
MIR's ablation (arXiv:2410.07167, table of recipes) finds it better than LLaVA's 1e-3.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.errors import CuveeError
from stages.train.checkpoint import Belonging, Progress, load_checkpoint, save_checkpoint
from stages.train.connector import ConnectorCard
from stages.train.language_model import LanguageModel, one_thread
from stages.train.sampler import MixtureSampler, unit_shares
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]
ONLY = ""
"""Name of the source where a single corpus is trained on."""


@dataclass(frozen=True)
class Frozen:
    """What training does not change: the language model and the images' tokens."""

    language: LanguageModel
    visual: VisualTokens

    def embeddings(self, images: list[str]) -> "torch.Tensor":
        """(n, tokens, width) visual tokens of images by hash, in fp32 on the language model's device."""
        import torch

        return torch.from_numpy(self.visual.gather(images)).to(self.language.device).float()


@dataclass(frozen=True)
class TrainResult:
    """A trained connector and how its loss fell."""

    connector: "torch.nn.Module"
    card: ConnectorCard
    curve: tuple[tuple[int, float], ...]
    """(steps done, mean loss in nats per label token since the point before)."""
    drawn: Mapping[str, int]
    """Samples drawn per source, repeats counted."""


def connector_card(settings: TrainSettings, frozen: Frozen, seed: str) -> ConnectorCard:
    """The connector that every arm starts from with this seed."""
    return ConnectorCard(
        connector=settings.connector,
        vision_width=frozen.visual.width,
        hidden=settings.hidden or frozen.language.width,
        language_width=frozen.language.width,
        visual_tokens=settings.visual_tokens,
        vision=settings.vision_identity,
        language_model=settings.language_identity,
        init_seed=xxhash.xxh3_64_intdigest(f"connector/{seed}".encode()) >> 1,
    )


def rate(settings: TrainSettings, step: int) -> float:
    """Learning rate of a step, from 0: linear warm-up, then a cosine that reaches the floor at the last step."""
    rising = math.ceil(settings.warmup * settings.steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / (rising + 1)
    u = (step - rising) / max(1, settings.steps - 1 - rising)
    return settings.learning_rate * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * u)))


def train(
    settings: TrainSettings,
    frozen: Frozen,
    corpus: Corpus,
    seed: str,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train one connector on one corpus: `train_mixture` with a single source.

    Raises:
        CuveeError: no samples, a checkpoint of another run, or a loss that is not finite.
    """
    if not len(corpus):
        raise CuveeError("there is no sample to train on; every one lacks a decodable image or a caption")
    one = np.ones(1)
    return train_mixture(settings, frozen, {ONLY: corpus}, seed, one, checkpoint=checkpoint, on_step=on_step)


def train_mixture(
    settings: TrainSettings,
    frozen: Frozen,
    corpora: Mapping[str, Corpus],
    seed: str,
    weights: Doubles,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train one connector on several corpora, each batch mixed by the weights.

    Args:
        settings: budget, batch, rates.
        frozen: the models around it; they are in eval mode and get no gradient.
        corpora: the samples of each source.
        seed: decides the initial weights and the order of samples, and nothing else does.
        weights: (S,) shares of the samples drawn, >= 0, summing to 1, sources by name.
        checkpoint: continued from when it exists, rewritten every `settings.checkpoint_steps` steps, removed at the
            end. A continued run equals an uninterrupted one bit for bit on a CPU.
        on_step: called with (steps done, loss in nats per label token).

    Raises:
        CuveeError: no source, one without samples, weights off the simplex, a checkpoint of another run, or a loss
            that is not finite.
    """
    with one_thread():
        run = _Run.start(settings, frozen, corpora, seed, weights)
        if checkpoint is not None and checkpoint.exists():
            run.resume(checkpoint)
        while run.progress.step < settings.steps:
            loss = run.step()
            if checkpoint is not None and run.progress.step % settings.checkpoint_steps == 0:
                save_checkpoint(checkpoint, run.module, run.optimizer, run.progress, run.belonging)
            if on_step is not None:
                on_step(run.progress.step, loss)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    return TrainResult(run.module, run.belonging.card, tuple(run.progress.curve), run.sampler.drawn)


@dataclass
class _Run:
    settings: TrainSettings
    frozen: Frozen
    corpora: Mapping[str, Corpus]
    module: "torch.nn.Module"
    optimizer: "torch.optim.Optimizer"
    sampler: MixtureSampler
    weights: Doubles
    belonging: Belonging
    progress: Progress

    @classmethod
    def start(
        cls, settings: TrainSettings, frozen: Frozen, corpora: Mapping[str, Corpus], seed: str, weights: Doubles
    ) -> "_Run":
        import torch

        card = connector_card(settings, frozen, seed)
        module = card.build().to(frozen.language.device)
        decay, peak = settings.weight_decay, settings.learning_rate
        optimizer = torch.optim.AdamW(module.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=decay)
        sampler = MixtureSampler({name: corpus.keys for name, corpus in corpora.items()}, settings.batch, seed)
        names = {"learning_rate", "warmup", "floor", "weight_decay", "batch", "max_tokens"}
        shares = unit_shares(weights, len(corpora))
        schedule = {"steps": settings.steps, "seed": seed, "shares": shares, **settings.model_dump(include=names)}
        belonging = Belonging(card, fingerprint(corpora), schedule)
        progress = Progress(0, [], [0.0, 0.0], sampler.state)
        return cls(settings, frozen, corpora, module, optimizer, sampler, weights, belonging, progress)

    def resume(self, checkpoint: Path) -> None:
        self.progress = load_checkpoint(checkpoint, self.module, self.optimizer, self.belonging)
        self.sampler.state = self.progress.sampler

    def step(self) -> float:
        import torch

        drawn = self.sampler.ids(self.weights)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.settings, self.progress.step)
        losses, tokens = batch_losses(self.module, self.frozen, self.corpora, drawn)
        loss = losses.sum() / tokens
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CuveeError(
                f"the loss is {value} at step {self.progress.step}; lower `learning_rate` or look at samples "
                f"{[self.corpora[name].keys[i] for name, i in drawn]}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.progress.sampler = self.sampler.state
        self.progress.record(value * tokens, tokens, self.settings.steps)
        return value


def batch_losses(
    module: "torch.nn.Module", frozen: Frozen, corpora: Mapping[str, Corpus], drawn: Sequence[tuple[str, int]]
) -> "tuple[torch.Tensor, int]":
    """(n, t) cross entropy in nats of some samples' label tokens, and how many of these there are."""
    whole = [bool(corpora[name].whole[i]) for name, i in drawn]
    labels = frozen.language.labels([corpora[name].caption(i) for name, i in drawn], whole)
    visual = module(frozen.embeddings([corpora[name].images[i] for name, i in drawn]))
    return frozen.language.token_losses(visual, labels), int((labels >= 0).sum())


def fingerprint(corpora: Mapping[str, Corpus]) -> str:
    """32 hex digits over the sources' names and samples; for a single corpus, its own fingerprint."""
    if list(corpora) == [ONLY]:
        return corpora[ONLY].fingerprint
    named = "".join(f"{name}\0{corpora[name].fingerprint}\n" for name in sorted(corpora))
    return xxhash.xxh3_128_hexdigest(named.encode())
