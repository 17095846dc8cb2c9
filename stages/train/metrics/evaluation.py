"""What a connector is worth on held-out pairs: NLL per token, token edit distance, and whether it uses the image.

Per source, for mixtures: smooth metrics alone (arXiv:2304.15004), never exact match.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import CuveeError
from stages.noise import uniform_noise
from stages.train.language_model import one_thread
from stages.train.loop import Frozen
from stages.train.metrics.bootstrap import bootstrap_interval
from stages.train.metrics.nll import label_counts, nll_and_brier, sample_losses
from stages.train.metrics.token_edit_distance import Written, token_edit_distance, written_captions
from stages.train.samples import Corpus

if TYPE_CHECKING:
    from stages.train.bridge import Bridge

METRICS = ("nll_per_token", "token_edit_distance", "visual_use_gap")
SOURCE_METRICS = ("nll", "brier", "token_edit_distance")
"""Of one held-out source; lower is better in each."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out samples with, for each, another image than its own."""

    corpus: Corpus
    others: tuple[str, ...]
    """Per sample, the hash of another image."""
    shown: tuple[int, ...]
    """Samples for which a caption is generated."""
    seed: int
    sources: tuple[str, ...] = ()
    """Per sample, where it comes from; empty where nobody knows."""

    @classmethod
    def over(cls, corpus: Corpus, generated: int, seed: int, sources: Mapping[str, str] | None = None) -> "Evaluation":
        """Fix images and samples once, so that every arm and seed is asked the same.

        Args:
            corpus: the held-out samples.
            generated: for how many captions are generated.
            seed: decides for which ones, and which other image each is shown with.
            sources: key to source.

        Raises:
            CuveeError: fewer than two distinct images.
        """
        distinct = sorted(set(corpus.images))
        if len(distinct) < 2:
            raise CuveeError(f"found {len(distinct)} held-out images, expected at least 2; name more in `train.eval`")
        noise = uniform_noise(distinct, seed, "shuffled image")
        cycle = [distinct[i] for i in np.argsort(noise, kind="stable")]
        follows = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        order = np.argsort(uniform_noise(corpus.keys, seed, "generated caption"), kind="stable")
        others = tuple(follows[image] for image in corpus.images)
        named = tuple(sources[key] for key in corpus.keys) if sources else ()
        return cls(corpus, others, tuple(order[:generated].tolist()), seed, named)

    @property
    def facts(self) -> dict[str, int]:
        """What stands behind the numbers."""
        ends = int(self.corpus.whole.sum())
        return {
            "pairs": len(self.corpus),
            "images": len(set(self.corpus.images)),
            "label_tokens": len(self.corpus.tokens) + ends,
            "generated": len(self.shown),
        }


@dataclass(frozen=True)
class Judged:
    """What a connector is worth, and what it says."""

    metrics: dict[str, float]
    written: tuple[Written, ...]

    @property
    def exact(self) -> float | None:
        """Share of generated captions that are the true one word for word: no measure (see above), but plain."""
        return float(np.mean([each.distance == 0 for each in self.written])) if self.written else None


def evaluate(bridge: "Bridge", frozen: Frozen, asked: Evaluation, batch: int) -> dict[str, float]:
    """The metrics of one connector, see `judge`."""
    return judge(bridge, frozen, asked, batch).metrics


def judge(bridge: "Bridge", frozen: Frozen, asked: Evaluation, batch: int) -> Judged:
    """The metrics of one connector, and the captions that it generates.

    `nll_per_token`: nats per label token (caption and end), the mean over all label tokens.
    `token_edit_distance`: mean over samples of the Levenshtein distance between the greedy caption and the true one,
    over the longer one's length, in [0, 1] (arXiv:2304.15004: near linear in per-token skill, unlike exact match).
    `visual_use_gap`: NLL per token with another image minus with the true one; > 0 when the image is used, with
    `visual_use_low` and `visual_use_high`, the 95 % bootstrap interval over images.
    """
    import torch

    with one_thread(), torch.inference_mode():
        true = sample_losses(bridge, frozen, asked.corpus, asked.corpus.images, batch)
        other = sample_losses(bridge, frozen, asked.corpus, asked.others, batch)
        written = tuple(written_captions(bridge, frozen, asked.corpus, asked.shown, batch))
    low, high = bootstrap_interval(other - true, label_counts(asked.corpus), asked.corpus.images, asked.seed)
    tokens = label_counts(asked.corpus).sum()
    found = {"nll_per_token": true.sum() / tokens, "visual_use_gap": (other - true).sum() / tokens}
    found |= {"visual_use_low": low, "visual_use_high": high}
    metrics = {name: float(value) for name, value in {**found, **token_edit_distance(written)}.items()}
    return Judged(metrics, written)


def evaluate_sources(
    bridge: "Bridge",
    frozen: Frozen,
    held: Mapping[str, Corpus],
    *,
    batch: int = 32,
    generated: int = 64,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """The smooth metrics of one connector on each held-out source.

    `nll`: nats per label token (caption and end), the mean over all label tokens.
    `brier`: mean over label tokens of sum_v (p_v - [v = label])^2 of the next-token distribution, in [0, 2].
    `token_edit_distance`: mean Levenshtein distance of greedy and true caption over the longer one's length, in
    [0, 1]; absent where no caption is generated.

    Args:
        bridge: what stands between the frozen models.
        frozen: the models around it.
        held: held-out samples per source.
        batch: samples a forward pass.
        generated: samples per source for which a caption is generated, at most; the same for every connector.
        seed: decides which ones.

    Raises:
        CuveeError: a source without samples.
    """
    import torch

    if empty := sorted(name for name in held if not len(held[name])):
        raise CuveeError(f"held-out source {empty[0]!r} has no sample to evaluate on; leave it out or give it some")
    found = {}
    with one_thread(), torch.inference_mode():
        for name, corpus in sorted(held.items()):
            order = np.argsort(uniform_noise(corpus.keys, seed, "generated caption"), kind="stable")
            shown = tuple(order[:generated].tolist())
            scores = nll_and_brier(bridge, frozen, corpus, batch)
            found[name] = scores | token_edit_distance(written_captions(bridge, frozen, corpus, shown, batch))
    return found
