"""Training on a mixture: batches by shares, AdamW, a cosine to 0."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.train.contrastive_probe.maps import maps
from stages.train.contrastive_probe.pairs import ContrastiveProbe, EmbeddedPairs
from stages.train.language_model import one_thread
from stages.train.sampler import MixtureSampler

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A trained probe."""

    module: "torch.nn.Module"
    drawn: Mapping[str, int]
    """Samples drawn per source, repeats counted."""


def train_probe(
    settings: ContrastiveProbe, corpora: Mapping[str, EmbeddedPairs], samples: int, seed: str, weights: Doubles
) -> Trained:
    """Train on a mixture.

    Args:
        settings: the probe's.
        corpora: per source its pairs; all of equal widths.
        samples: drawn, repeats included; rounded up to whole batches.
        seed: decides the start and the order of samples.
        weights: (S,) shares, sources by name.

    Raises:
        CuveeError: a source without pairs, or a loss that is not finite.
    """
    import torch

    first = next(iter(corpora.values()))
    steps = settings.steps(samples)
    with one_thread():
        module = maps(settings, first.images.shape[1], first.captions.shape[1], seed)
        matrices = [*module.images.parameters(), *module.captions.parameters()]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": [module.log_scale], "weight_decay": 0.0}]
        rate, decay = settings.learning_rate, settings.weight_decay
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=decay)
        sampler = MixtureSampler({name: pairs.keys for name, pairs in corpora.items()}, settings.batch, seed)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * settings.learning_rate * (1 + math.cos(math.pi * step / steps))
            loss = contrastive_loss(module, *gathered(corpora, sampler.ids(weights)))
            if not math.isfinite(float(loss.detach())):
                raise CuveeError(f"the probe's loss is {float(loss.detach())} at step {step}; lower `learning_rate`")
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
    return Trained(module, sampler.drawn)


def gathered(
    corpora: Mapping[str, EmbeddedPairs], drawn: list[tuple[str, int]]
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Image embeddings, caption embeddings, and (n, n) which pairs are no negatives of each other."""
    import torch

    images = np.stack([corpora[name].images[i] for name, i in drawn])
    captions = np.stack([corpora[name].captions[i] for name, i in drawn])
    image_ids = np.array([corpora[name].image_ids[i] for name, i in drawn])
    caption_ids = np.array([corpora[name].caption_ids[i] for name, i in drawn])
    alike = (image_ids[:, None] == image_ids) | (caption_ids[:, None] == caption_ids)
    np.fill_diagonal(alike, False)
    return torch.from_numpy(images), torch.from_numpy(captions), torch.from_numpy(alike)


def contrastive_loss(
    module: Any, images: "torch.Tensor", captions: "torch.Tensor", alike: "torch.Tensor"
) -> "torch.Tensor":
    """The symmetric InfoNCE loss, in nats, of n pairs in order; `alike` (n, n) are no negatives."""
    import torch

    u, v = module(images, captions)
    logits = (module.scale() * u @ v.T).masked_fill(alike, -math.inf)
    own = torch.arange(len(images))
    cross_entropy = torch.nn.functional.cross_entropy
    return 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))
