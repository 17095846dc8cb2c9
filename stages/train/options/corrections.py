"""Logit correction (arXiv:2212.01433) as an option of connector training; its maths is `stages.train.logit_correction`.

Three forms. `caption` takes what only a source's style says out of the caption's logits while training. `concept_head`
adds a linear head that names an image's concept from the connector's pooled output, corrected for the sample's source.
`two_branch` does not know the source: a biased head on the pooled frozen features guesses the attribute, as published.
The head's concepts come with the samples (`column` of the export) or from centroids of pooled frozen features.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from schemas.errors import RecipeError
from stages.file_identity import Located, file_identity
from stages.train.options.option import Option, part

if TYPE_CHECKING:
    import torch


class CaptionStyle(Option):
    """Pointwise mutual information of token and source in the logits; trains nothing of its own."""

    name: ClassVar[str] = "caption_style"
    has_part: ClassVar[bool] = False

    form: Literal["caption"] = "caption"
    beta: float = Field(0.25, ge=0, le=1)
    """0 is the plain loss; above a quarter, whole captions of a balanced set were no better than with it."""
    smoothing: float = Field(100.0, gt=0)
    """Tokens of the pooled frequencies that each source is given beside its own."""


class ConceptHead(Option):
    """A head on the connector's output, corrected for the source, which is known."""

    name: ClassVar[str] = "concept_head"

    form: Literal["concept_head"] = "concept_head"
    column: str | None = None
    """Exported column that names a sample's concept."""
    centroids: Located | None = None
    """A .npy file (k, vision width): the concept is the centroid with the largest cosine to the mean feature."""
    weight: float = Field(0.1, gt=0)
    """Of the head's mean loss beside the caption's."""
    smoothing: float = Field(1.0, gt=0)
    """Samples added to each cell of (concept, source)."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ConceptHead":
        if (self.column is None) == (self.centroids is None):
            raise ValueError("say where concepts come from: either `column` or `centroids`")
        return self

    def check(self) -> None:
        """Refuse centroids that are not there."""
        if self.centroids is not None and not Path(self.centroids).is_file():
            raise RecipeError(f"`centroids` {self.centroids!r} is no file; name a .npy of (k, vision width)")

    def record(self) -> dict[str, Any]:
        """Its settings, the centroids by their bytes."""
        told = self.model_dump(mode="json")
        if self.centroids is not None and Path(self.centroids).is_file():
            told["centroids"] = file_identity(Path(self.centroids))
        return told

    def start(self, language_width: int, vision_width: int, counts: "torch.Tensor") -> "torch.nn.Module":
        """The part before its first step: a head that prefers no concept.

        Args:
            language_width: of the connector's output.
            vision_width: of the frozen features.
            counts: (L,) training samples of each concept.
        """
        return part(self, self._tensors(language_width, vision_width, counts))

    def _tensors(self, language_width: int, vision_width: int, counts: "torch.Tensor") -> "dict[str, torch.Tensor]":
        import torch

        return {"weight": torch.zeros(len(counts), language_width), "bias": torch.zeros(len(counts))}


class TwoBranches(ConceptHead):
    """The same where nobody knows the attribute: a biased branch guesses it."""

    form: Literal["two_branch"] = "two_branch"  # type: ignore[assignment]
    q: float = Field(0.7, gt=0, le=1)
    """Of the biased branch's generalised cross entropy."""
    strength: float = Field(1.0, gt=0)
    """Of the biased branch's loss beside the corrected one."""
    temperature: float = Field(1.0, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    """What a batch leaves of the prior."""

    fixed: ClassVar[tuple[str, ...]] = ("given_class", "shares")

    def _tensors(self, language_width: int, vision_width: int, counts: "torch.Tensor") -> "dict[str, torch.Tensor]":
        import torch

        classes = len(counts)
        biased = {"biased_weight": torch.zeros(classes, vision_width), "biased_bias": torch.zeros(classes)}
        prior = {"given_class": torch.full((classes, classes), 1 / classes), "shares": counts / counts.sum()}
        return {**super()._tensors(language_width, vision_width, counts), **biased, **prior}


Correction = CaptionStyle | ConceptHead | TwoBranches
FORMS: dict[str, type[CaptionStyle] | type[ConceptHead]] = {
    "caption": CaptionStyle,
    "concept_head": ConceptHead,
    "two_branch": TwoBranches,
}


def correction_of(given: object) -> object:
    """A correction from its form and settings; anything but a mapping with a form is left to the validation.

    Raises:
        ValueError: a form that is not known.
    """
    if not isinstance(given, dict) or not isinstance(given.get("form"), str):
        return given
    if given["form"] not in FORMS:
        raise ValueError(f"found form {given['form']!r} of logit correction, expected one of {', '.join(FORMS)}")
    return FORMS[given["form"]].model_validate(given)


def refuse_lone_source(names: "tuple[str, ...]") -> None:
    """Refuse to correct for the source where there is one.

    Raises:
        RecipeError: fewer than two sources.
    """
    if len(names) < 2:
        raise RecipeError(
            "`logit_correction` corrects for the source of a sample, and here is one source alone; leave it out, or "
            "train on a mixture of sources"
        )
