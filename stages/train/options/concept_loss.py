"""The loss of a corrected concept head beside the caption's: its source is known, or guessed by a biased branch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.train.logit_correction.biased_branch import gce_losses
from stages.train.logit_correction.concept_head import log_prior_of
from stages.train.logit_correction.correction import corrected_losses
from stages.train.logit_correction.spurious_prior import log_columns, updated_prior
from stages.train.options.concepts import NONE, Concepts
from stages.train.options.corrections import ConceptHead, TwoBranches

if TYPE_CHECKING:
    import torch

    from stages.train.batches import Batches

Drawn = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class ConceptLoss:
    """What a head is trained on."""

    option: ConceptHead
    concepts: Concepts
    log_prior: "torch.Tensor"
    """(S, L) ln P(concept | source) of the training samples."""

    @classmethod
    def of(cls, option: ConceptHead, batches: "Batches") -> "ConceptLoss":
        """Count concepts and sources.

        Raises:
            RecipeError: a sample without a concept, one concept or one source alone.
        """
        import torch

        known = Concepts.of(option, batches)
        labels = np.concatenate([known.concepts[name] for name in batches.names])
        sources = np.concatenate([known.sources[name] for name in batches.names])
        there = labels != NONE
        prior = log_prior_of(labels[there], sources[there], len(known.names), len(known.kinds), option.smoothing)
        return cls(option, known, torch.from_numpy(prior.T.copy()).float().to(batches.frozen.language.device))

    def of_batch(self, part: Any, outputs: "torch.Tensor", features: "torch.Tensor", drawn: Drawn) -> "torch.Tensor":
        """The head's weighted mean loss.

        Args:
            part: the head.
            outputs: (n, t, language width) of the connector, sample by sample.
            features: (n, v, vision width) that it was given.
            drawn: (n,) which samples these are.
        """
        import torch

        labels = torch.tensor([self.concepts.concepts[name][i] for name, i in drawn], device=outputs.device)
        logits = torch.nn.functional.linear(outputs.float().mean(dim=1), part.weight, part.bias)
        if isinstance(self.option, TwoBranches):
            return self.option.weight * two_branches(self.option, part, logits, features, labels)
        sources = torch.tensor([self.concepts.sources[name][i] for name, i in drawn], device=outputs.device)
        return self.option.weight * corrected_losses(logits, labels, self.log_prior[sources]).mean()


def two_branches(
    option: TwoBranches, part: Any, logits: "torch.Tensor", features: "torch.Tensor", labels: "torch.Tensor"
) -> "torch.Tensor":
    """Mean of the corrected losses and of the biased branch's; the prior has seen the batch before it corrects it."""
    import torch

    biased = torch.nn.functional.linear(features.float().mean(dim=1), part.biased_weight, part.biased_bias)
    with torch.no_grad():
        guessed = (biased / option.temperature).softmax(dim=-1)
        part.given_class.copy_(updated_prior(part.given_class, labels, guessed, option.momentum))
        log_priors = log_columns(part.given_class, part.shares, biased.argmax(dim=-1))
    corrected = corrected_losses(logits, labels, log_priors).mean()
    return corrected + option.strength * gce_losses(biased, labels, option.q).mean()
