"""What a connector is worth on held-out pairs: NLL per token, token edit distance, and whether it uses the image.

Per source, for mixtures: smooth metrics alone (arXiv:2304.15004), never exact match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise
from stages.train.language_model import brier_scores, cross_entropies, one_thread
from stages.train.loop import Frozen
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
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

    @classmethod
    def over(cls, corpus: Corpus, generated: int, seed: int) -> "Evaluation":
        """Fix images and samples once, so that every arm and seed is asked the same.

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
        return cls(corpus, others, tuple(order[:generated].tolist()), seed)

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


def evaluate(connector: "torch.nn.Module", frozen: Frozen, asked: Evaluation, batch: int) -> dict[str, float]:
    """The metrics of one connector.

    `nll_per_token`: nats per label token (caption and end), the mean over all label tokens.
    `token_edit_distance`: mean over samples of the Levenshtein distance between the greedy caption and the true one,
    over the longer one's length, in [0, 1] (arXiv:2304.15004: near linear in per-token skill, unlike exact match).
    `visual_use_gap`: NLL per token with another image minus with the true one; > 0 when the image is used, with
    `visual_use_low` and `visual_use_high`, the 95 % bootstrap interval over images.
    """
    import torch

    with one_thread(), torch.inference_mode():
        true = sample_losses(connector, frozen, asked.corpus, asked.corpus.images, batch)
        other = sample_losses(connector, frozen, asked.corpus, asked.others, batch)
        distance = _edit_distance(connector, frozen, asked.corpus, asked.shown, batch)
    low, high = bootstrap_interval(other - true, label_counts(asked.corpus), asked.corpus.images, asked.seed)
    tokens = label_counts(asked.corpus).sum()
    found = {"nll_per_token": true.sum() / tokens, "visual_use_gap": (other - true).sum() / tokens}
    found |= {"visual_use_low": low, "visual_use_high": high}
    return {name: float(value) for name, value in {**found, **distance}.items()}


def evaluate_sources(
    connector: "torch.nn.Module",
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
        connector: what stands between the frozen models.
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
            scores = _smooth(connector, frozen, corpus, batch)
            found[name] = scores | _edit_distance(connector, frozen, corpus, shown, batch)
    return found


def _smooth(connector: "torch.nn.Module", frozen: Frozen, corpus: Corpus, batch: int) -> dict[str, float]:
    sums = {"nll": 0.0, "brier": 0.0}
    for start in range(0, len(corpus), batch):
        ids = list(range(start, min(start + batch, len(corpus))))
        labels = frozen.language.labels([corpus.caption(i) for i in ids], corpus.whole[ids].tolist())
        logits = frozen.language.logits(connector(frozen.embeddings([corpus.images[i] for i in ids])), labels)
        sums["nll"] += float(cross_entropies(logits, labels).double().sum())
        sums["brier"] += float(brier_scores(logits, labels).double().sum())
    tokens = float(label_counts(corpus).sum())
    return {name: value / tokens for name, value in sums.items()}


def label_counts(corpus: Corpus) -> Floats:
    """(n,) label tokens per sample: the caption's and, where it is whole, the end token."""
    return np.diff(corpus.offsets).astype(np.float64) + corpus.whole


def sample_losses(
    connector: "torch.nn.Module", frozen: Frozen, corpus: Corpus, images: Sequence[str], batch: int
) -> Floats:
    """(n,) summed cross entropy in nats of each sample's labels, behind the given images."""
    sums: list[float] = []
    for start in range(0, len(corpus), batch):
        ids = list(range(start, min(start + batch, len(corpus))))
        labels = frozen.language.labels([corpus.caption(i) for i in ids], corpus.whole[ids].tolist())
        visual = connector(frozen.embeddings([images[i] for i in ids]))
        sums += frozen.language.token_losses(visual, labels).double().sum(dim=1).tolist()
    return np.array(sums)


def _edit_distance(
    connector: "torch.nn.Module", frozen: Frozen, corpus: Corpus, shown: Sequence[int], batch: int
) -> dict[str, float]:
    distances: list[float] = []
    most = int(np.diff(corpus.offsets).max())
    for start in range(0, len(shown), batch):
        ids = shown[start : start + batch]
        visual = connector(frozen.embeddings([corpus.images[i] for i in ids]))
        written = frozen.language.generate(visual, most)
        distances += [edit_distance(row, corpus.caption(i)) for row, i in zip(written, ids, strict=True)]
    return {"token_edit_distance": float(np.mean(distances))} if distances else {}


def edit_distance(left: Sequence[int], right: Sequence[int]) -> float:
    """Levenshtein distance of two token lists over the longer one's length, in [0, 1]; 0 for two empty ones."""
    row = list(range(len(right) + 1))
    for i, mine in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(right, start=1):
            before, row[j] = row[j], min(before + (mine != theirs), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(left), len(right), 1)


def bootstrap_interval(gaps: Floats, tokens: Floats, images: Sequence[str], seed: int) -> tuple[float, float]:
    """95 % percentile interval of sum(gaps) / sum(tokens), resampling images with all their captions.

    Args:
        gaps: (n,) nats per sample.
        tokens: (n,) label tokens per sample.
        images: (n,) image hashes; captions of one image are not independent and stay together.
        seed: of the resamples, which are the same for every connector.
    """
    names, group = np.unique(np.array(images), return_inverse=True)
    gap_sums, token_sums = np.bincount(group, gaps), np.bincount(group, tokens)
    noise = uniform_noise([str(draw) for draw in range(RESAMPLES * len(names))], seed, "visual use bootstrap")
    drawn = (noise.reshape(RESAMPLES, -1) * len(names)).astype(np.int64)
    means = gap_sums[drawn].sum(axis=1) / token_sums[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
