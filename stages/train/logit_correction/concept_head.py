"""A linear head that names the concept of an image from connector outputs, corrected for the image's source.

The attribute is known, so that no second network has to guess it: D is a table of counts. Two uses: a term beside the
caption loss of a connector in training (`concept_losses`), and a head on outputs that are there (`fit_concept_head`).
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.train.logistic import fit_logistic
from stages.train.logit_correction.correction import corrected_losses, counted_prior

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def concept_losses(
    head: "torch.nn.Linear",
    outputs: "torch.Tensor",
    concepts: "torch.Tensor",
    sources: "torch.Tensor",
    log_prior: "torch.Tensor",
) -> "torch.Tensor":
    """(n,) corrected losses in nats of a head on connector outputs, differentiable in both.

    Args:
        head: width to L logits; used without the prior.
        outputs: (n, tokens, width) of the connector; pooled over tokens here.
        concepts: (n,) in [0, L).
        sources: (n,) in [0, S).
        log_prior: (L, S) of `log_prior_of`; zeros for plain cross entropy.
    """
    return corrected_losses(head(outputs.mean(dim=1)), concepts, log_prior.T[sources])


def log_prior_of(concepts: Integers, sources: Integers, classes: int, kinds: int, smoothing: float = 1.0) -> Doubles:
    """(L, S) ln P(concept | source) of a training set, each cell with `smoothing` samples more.

    Raises:
        CuveeError: smoothing is not positive.
    """
    log_prior: Doubles = np.log(counted_prior(concepts, sources, classes, kinds, smoothing))
    return log_prior


def fit_concept_head(
    features: Doubles, concepts: Integers, classes: int, penalty: float, corrections: Doubles | None = None
) -> tuple[Doubles, Doubles]:
    """(L, d) weights and (L,) bias of the head on (n, d) features; the minimum is unique and reached.

    Args:
        features: (n, d), standardised.
        concepts: (n,) in [0, L).
        classes: L.
        penalty: of the squared weights, beside the summed loss.
        corrections: (n, L) log priors of each sample's source; default: plain cross entropy.

    Raises:
        CuveeError: the minimum was not reached.
    """
    return fit_logistic(features, concepts, classes, penalty, corrections)
