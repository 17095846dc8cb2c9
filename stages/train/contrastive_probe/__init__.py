"""A contrastive probe: two small maps over frozen image and caption embeddings, trained in seconds on a mixture.

It stands in for a training run where many mixtures are to be told apart. An image embedding x and a caption embedding
y become u = A x / |A x| and v = B y / |B y|; n pairs have the symmetric InfoNCE loss of CLIP (arXiv:2103.00020),

    L = -1/2n sum_i [ log softmax_j(s u_i . v_j)_i + log softmax_j(s u_j . v_i)_i ],

s = exp of a learned number, at most 100. A and B are linear, or with `hidden` two layers around a GELU. Ours: pairs
that share an image or a caption are no negatives of each other, in training and in evaluation.
"""

from stages.train.contrastive_probe.evaluation import METRICS, candidate_sets, evaluate_probe
from stages.train.contrastive_probe.pairs import ContrastiveProbe, EmbeddedPairs
from stages.train.contrastive_probe.training import Trained, train_probe

VERSION = 1
"""Raise it when equal settings and samples give other numbers."""

__all__ = [
    "METRICS",
    "VERSION",
    "ContrastiveProbe",
    "EmbeddedPairs",
    "Trained",
    "candidate_sets",
    "evaluate_probe",
    "train_probe",
]
