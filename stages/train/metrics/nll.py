"""Negative log-likelihood and Brier score per label token: smooth in per-token skill (arXiv:2304.15004)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.train.hearing import Heard, Sample, hear
from stages.train.loop import Frozen
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

Floats = npt.NDArray[np.float64]


def brier_scores(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """(...,) Brier score sum_v (p_v - [v = label])^2 of labels (...,) under logits (..., vocabulary), in [0, 2].

    Computed as sum_v p_v^2 - 2 p_label + 1, so that no second array of the logits' size is needed. 0 where a label is
    ignored.
    """
    spoken = logits.softmax(dim=-1)
    told = spoken.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    scores: torch.Tensor = spoken.square().sum(dim=-1) - 2 * told + 1
    return scores.masked_fill(labels < 0, 0.0)


def label_counts(corpus: Corpus) -> Floats:
    """(n,) label tokens per sample: the caption's and, where it is whole, the end token."""
    return np.diff(corpus.offsets).astype(np.float64) + corpus.whole


def sample_losses(bridge: "Bridge", frozen: Frozen, corpus: Corpus, images: Sequence[str], batch: int) -> Floats:
    """(n,) summed cross entropy in nats of each sample's labels, behind the given images."""
    found = np.zeros(len(corpus))
    for start, heard in _passes(bridge, frozen, corpus, images, batch):
        np.add.at(found, start + heard.samples.cpu().numpy(), heard.cross_entropies().double().cpu().numpy())
    return found


def nll_and_brier(bridge: "Bridge", frozen: Frozen, corpus: Corpus, batch: int) -> dict[str, float]:
    """Mean over the label tokens of a corpus of `nll`, in nats, and of `brier`, in [0, 2]."""
    sums = {"nll": 0.0, "brier": 0.0}
    for _, heard in _passes(bridge, frozen, corpus, corpus.images, batch):
        sums["nll"] += float(heard.cross_entropies().double().sum())
        sums["brier"] += float(brier_scores(heard.logits, heard.labels).double().sum())
    tokens = float(label_counts(corpus).sum())
    return {name: value / tokens for name, value in sums.items()}


def _passes(
    bridge: "Bridge", frozen: Frozen, corpus: Corpus, images: Sequence[str], batch: int
) -> Iterator[tuple[int, Heard]]:
    for start in range(0, len(corpus), batch):
        ids = range(start, min(start + batch, len(corpus)))
        samples = [Sample(corpus.caption(i), bool(corpus.whole[i]), images[i]) for i in ids]
        yield start, hear(bridge, frozen, samples)
