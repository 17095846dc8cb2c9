"""Samples through the models: an image as the connector tells it, text around it, and what is said of each label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.train.layout import Layout, lay_out
from stages.train.templates import Template

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.language_model import LanguageModel
    from stages.train.loop import Frozen
    from stages.train.settings import TrainSettings


@dataclass(frozen=True)
class Manner:
    """How samples of a forward pass stand."""

    pack: int | None = None
    """Most places of a row that several samples share; None: each has its own."""
    share: bool = False
    """Whether captions of one image share its visual tokens."""
    templates: tuple[Template, ...] = ()
    """Of which one is drawn for each sample; none: the language model's first."""

    @classmethod
    def of(cls, settings: "TrainSettings", language: "LanguageModel") -> "Manner":
        """What settings ask for; the templates are the language model's."""
        return cls(settings.pack.length if settings.pack else None, settings.share_prefix, language.templates)


ALONE = Manner()
"""Each sample in a row of its own, behind the first template."""


@dataclass(frozen=True)
class Sample:
    """What is put through the models."""

    caption: Sequence[int]
    whole: bool
    """False where the caption was cut, and its end is not predicted."""
    image: str
    """By hash; empty: text without an image."""
    template: Template | None = None
    """None: the language model's first."""
    level: int | None = None
    """Of its alignment, for a bridge that knows such; None: the highest."""


@dataclass(frozen=True)
class Heard:
    """What the language model says about some samples' label tokens."""

    logits: "torch.Tensor"
    """(L, vocabulary) float32."""
    labels: "torch.Tensor"
    """(L,) ids."""
    samples: "torch.Tensor"
    """(L,) number of the sample a label belongs to, from 0."""
    layout: Layout
    """Where everything stood."""
    images: "torch.Tensor"
    """(n,) number of each sample's image among those shown; -1: it has none."""
    features: "torch.Tensor"
    """(m, v, vision width) of the images shown."""
    shown: "Shown | None"
    """The images as the model saw them; None: there was none."""

    def cross_entropies(self) -> "torch.Tensor":
        """(L,) nats."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits, self.labels, reduction="none")


def hear(bridge: "Bridge", frozen: "Frozen", samples: Sequence[Sample], manner: Manner = ALONE) -> Heard:
    """Put samples through the models.

    Args:
        bridge: what is trained.
        frozen: the models around it.
        samples: at least one.
        manner: how they stand.
    """
    import torch

    language = frozen.language
    around = [sample.template or language.template for sample in samples]
    numbers, first = _images(samples, around, manner.share)
    features, shown = torch.zeros(0, 0, 0), None
    if first:
        features = frozen.embeddings([samples[i].image for i in first])
        given = [samples[i].level for i in first]
        levels = None if None in given else torch.tensor(given, device=features.device)
        shown = language.show(bridge, features, [around[i] for i in first], levels)
    said = [
        language.said(sample.caption, sample.whole, None if image < 0 else image, template)
        for sample, image, template in zip(samples, numbers, around, strict=True)
    ]
    layout = lay_out(said, shown.places if shown else 0, pack=manner.pack, share=manner.share)
    logits = language.label_logits(layout, shown, bridge)
    labels, belong = (torch.from_numpy(part).to(logits.device) for part in (layout.labels, layout.samples))
    return Heard(logits, labels, belong, layout, torch.tensor(numbers, device=logits.device), features, shown)


def _images(samples: Sequence[Sample], around: Sequence[Template], share: bool) -> tuple[list[int], list[int]]:
    """The number of each sample's image among those shown, or -1; and the first sample of each of these.

    What a connector makes of an image may depend on the template and on the level: only equal ones are shared.
    """
    places: dict[object, int] = {}
    numbers: list[int] = []
    first: list[int] = []
    for i, sample in enumerate(samples):
        key = (sample.image, around[i], sample.level) if share else i
        if sample.image and key not in places:
            places[key] = len(first)
            first.append(i)
        numbers.append(places[key] if sample.image else -1)
    return numbers, first
