"""Which concept every training sample shows, and which source it comes from: what a corrected head is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.train.image_features import mean_tokens
from stages.train.options.corrections import ConceptHead, refuse_lone_source
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

    from stages.train.batches import Batches

Integers = npt.NDArray[np.int64]
NONE = -1
SOURCE = "source"
"""The column that says where a sample comes from."""


@dataclass(frozen=True)
class Concepts:
    """Numbers of concept and source per sample, by its corpus; text without an image has no concept."""

    concepts: Mapping[str, Integers]
    sources: Mapping[str, Integers]
    names: tuple[str, ...]
    """Of the concepts."""
    kinds: tuple[str, ...]
    """Names of the sources."""

    @classmethod
    def of(cls, option: ConceptHead, batches: "Batches") -> "Concepts":
        """Read or compute them.

        Raises:
            RecipeError: a sample without a concept, fewer than two concepts, or centroids of another width.
        """
        kinds, sources = sources_of(batches.corpora)
        told = {name: _told(option, corpus, batches) for name, corpus in sorted(batches.corpora.items())}
        names = tuple(sorted({one for every in told.values() for one in every if one is not None}))
        if len(names) < 2:
            raise RecipeError(f"`logit_correction` found the concepts {list(names)}, expected two or more")
        number: dict[str | None, int] = {None: NONE, **{name: place for place, name in enumerate(names)}}
        concepts = {name: np.array([number[one] for one in every], np.int64) for name, every in told.items()}
        return cls(concepts, sources, names, kinds)

    @property
    def counts(self) -> "torch.Tensor":
        """(L,) samples of each concept."""
        import torch

        every = np.concatenate([self.concepts[name] for name in sorted(self.concepts)])
        return torch.from_numpy(np.bincount(every[every != NONE], minlength=len(self.names)))


def sources_of(corpora: Mapping[str, Corpus]) -> tuple[tuple[str, ...], dict[str, Integers]]:
    """Names of all sources, and each sample's number among them: its column `source`, else the corpus it stands in.

    Raises:
        RecipeError: one source alone.
    """
    named = {
        name: [str(said if said is not None else name) for said in corpus.columns.get(SOURCE, (None,) * len(corpus))]
        for name, corpus in corpora.items()
    }
    kinds = tuple(sorted({one for every in named.values() for one in every}))
    refuse_lone_source(kinds)
    number = {name: place for place, name in enumerate(kinds)}
    return kinds, {name: np.array([number[one] for one in every], np.int64) for name, every in named.items()}


def _told(option: ConceptHead, corpus: Corpus, batches: "Batches") -> list[str | None]:
    if option.centroids is not None:
        return _nearest(option.centroids, corpus, batches)
    values = corpus.columns.get(option.column or "", (None,) * len(corpus))
    lines = list(zip(corpus.keys, corpus.images, values, strict=True))
    if missing := [key for key, image, value in lines if image and value is None]:
        raise RecipeError(
            f"`logit_correction` asks for the column {option.column!r} of every training sample, but {len(missing)} of "
            f"{len(corpus)} have none, e.g. {missing[0]!r}; name it under `export: {{columns: [...]}}`"
        )
    return [str(value) if image else None for _, image, value in lines]


def _nearest(file: str, corpus: Corpus, batches: "Batches") -> list[str | None]:
    """The centroid with the largest cosine to each image's mean feature; of equal ones the first."""
    centroids = np.load(file, allow_pickle=False).astype(np.float64)
    width = batches.frozen.visual.width
    if centroids.ndim != 2 or centroids.shape[1] != width:
        raise RecipeError(
            f"`centroids` {file} has the shape {centroids.shape}, expected (k, {width}), the tower's width"
        )
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    place = len(str(len(centroids)))

    if not (shown := list(dict.fromkeys(filter(None, corpus.images)))):
        return [None] * len(corpus)
    means = mean_tokens(batches.frozen.visual, shown)
    names = (str(int((centroids @ mean).argmax())).zfill(place) for mean in means)
    nearest = dict(zip(shown, names, strict=True))
    return [nearest.get(image) for image in corpus.images]
