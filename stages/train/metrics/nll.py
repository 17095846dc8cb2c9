"""Negative log-likelihood and Brier score per label token: smooth in per-token skill (arXiv:2304.15004)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.train.language_model import brier_scores, cross_entropies
from stages.train.loop import Frozen
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]


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


def nll_and_brier(connector: "torch.nn.Module", frozen: Frozen, corpus: Corpus, batch: int) -> dict[str, float]:
    """Mean over the label tokens of a corpus of `nll`, in nats, and of `brier`, in [0, 2]."""
    sums = {"nll": 0.0, "brier": 0.0}
    for start in range(0, len(corpus), batch):
        ids = list(range(start, min(start + batch, len(corpus))))
        labels = frozen.language.labels([corpus.caption(i) for i in ids], corpus.whole[ids].tolist())
        logits = frozen.language.logits(connector(frozen.embeddings([corpus.images[i] for i in ids])), labels)
        sums["nll"] += float(cross_entropies(logits, labels).double().sum())
        sums["brier"] += float(brier_scores(logits, labels).double().sum())
    tokens = float(label_counts(corpus).sum())
    return {name: value / tokens for name, value in sums.items()}
