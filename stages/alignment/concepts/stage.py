"""The stage: one number per concept, and the name of the concept that has most of it. No image is opened."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from schemas.columns import IMAGE_EMBEDDING, named_column
from schemas.errors import RecipeError
from stages.alignment.concepts.learned import read_prompts
from stages.clip_model.model import load
from stages.clip_model.weights import find_model
from stages.file_identity import Located, file_identity
from stages.stage import Scorer, Stage
from stages.vectors import Doubles, known_rows, scored, softmax, unit


class Concepts(Stage):
    """Scores of a recipe's concepts, for thresholds, and the best one as a tag.

    A concept's vector is the mean of its prompts' unit-norm embeddings, brought to norm 1. `cosine` is an image's with
    it: concepts are judged one by one, and a threshold has to be found for the model. `softmax` shares 1 out among the
    concepts at the model's own temperature: they are judged against each other, so name one that is none of the others.
    """

    kind: Literal["concepts"] = "concepts"
    column: str = "concept"
    """The tag's column, and what the others begin with: `concept`, `concept_weapon`, ... Several steps of a recipe each
    have their own."""
    model: Located
    """That of the `clip` step, which is taken where none is named."""
    pretrained: Located | None = None
    concepts: tuple[str, ...] | dict[str, str | tuple[str, ...]] = ()
    """Names, put into `template` with `_` as a space; or names with prompts of their own, one or several."""
    template: str = "a photo of {}"
    learned: Located | None = None
    """A safetensors file of prompts that were learned: per concept a tensor (d,) or (n, d)."""
    score: Literal["softmax", "cosine"] = "softmax"

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE_EMBEDDING,)
    shares: ClassVar[tuple[str, ...]] = ("model", "pretrained")
    batch_rows: ClassVar[int] = 4096

    @model_validator(mode="after")
    def _sound(self) -> "Concepts":
        if self.template.count("{}") != 1:
            raise ValueError(f"`template` is {self.template!r}; expected {{}} once, where the name goes")
        if blank := [
            name for name, prompts in self.prompts().items() if not prompts or not all(map(str.strip, prompts))
        ]:
            raise ValueError(f"concept {blank[0]!r} has an empty prompt")
        if twice := sorted(set(self.prompts()) & set(self._learned())) or self._doubled():
            raise ValueError(f"concept {twice[0]!r} is named twice; give each one name, in words or learned")
        if len(self.names) < (2 if self.score == "softmax" else 1):
            raise ValueError(f"found concepts {list(self.names)}; name at least 2, or 1 with `score: cosine`")
        assert self.writes  # declares the columns, or raises
        return self

    @property
    def name(self) -> str:
        """The kind, and the column where it is not the default."""
        return self.kind if self.column == "concept" else f"{self.kind}_{self.column}"

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts, those in words first; a tie goes to the earlier one."""
        return (*self.prompts(), *self._learned())

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """The tag, then one number per concept."""
        low, high = (0.0, 1.0) if self.score == "softmax" else (-1.001, 1.001)
        words = "share of the image among the concepts" if self.score == "softmax" else "cosine of image and concept"
        tag = named_column(self.column, pa.string(), "concept with the largest value")
        scores = (
            named_column(f"{self.column}_{name}", pa.float32(), f"{words}: {name}", low=low, high=high)
            for name in self.names
        )
        return (tag, *scores)

    def prompts(self) -> dict[str, tuple[str, ...]]:
        """Concept -> its prompts in words."""
        if isinstance(self.concepts, dict):
            return {name: (told,) if isinstance(told, str) else told for name, told in self.concepts.items()}
        return {name: (self.template.replace("{}", name.replace("_", " ")),) for name in self.concepts}

    def widths(self) -> dict[str, int]:
        """That of the model, or of the learned prompts."""
        width = find_model(self.model, self.pretrained).width()
        found = {len(rows[0]) for rows in self._learned().values()} | ({width} if width else set())
        if len(found) > 1:
            raise RecipeError(f"{self.name}: the learned prompts and the model have {sorted(found)} numbers")
        return {IMAGE_EMBEDDING.name: found.pop()} if found else {}

    def check(self) -> None:
        """Refuse a model that is not there, and prompts that are not for it.

        Raises:
            RecipeError: see `find_model` and `widths`.
        """
        self.widths()

    def identity(self) -> dict[str, object]:
        """The model and the learned prompts by their content, and the settings."""
        return {
            **super().identity(),
            **find_model(self.model, self.pretrained).address(),
            "learned": file_identity(Path(self.learned)) if self.learned else None,
            "names": list(self.names),
        }

    def open(self) -> Scorer:
        """Embed the prompts; the model itself is not kept."""
        vectors, scale = self._vectors()

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows, there = known_rows(batch[IMAGE_EMBEDDING.name], vectors.shape[1], self.name)
            values = unit(rows) @ vectors.T
            best = np.full(len(there), -1)
            best[there] = values.argmax(axis=1) if len(rows) else []
            tags = [self.names[place] if place >= 0 else None for place in best]
            values = softmax(scale * values) if self.score == "softmax" else values
            scores = [scored(column, there, pa.float32()) for column in values.T]
            reasons = [None if known else "missing_embedding" for known in there]
            return pa.record_batch(
                [pa.array(tags, pa.string()), *scores, pa.array(reasons, pa.string())], self.returns()
            )

        return score

    def _vectors(self) -> tuple[Doubles, float]:
        """Unit-norm vectors of all concepts (k, d), and the model's logit scale."""
        model = load(find_model(self.model, self.pretrained))
        told = self.prompts()
        embeddings, reasons = model.embed_texts([prompt for prompts in told.values() for prompt in prompts])
        if any(reasons):
            raise RecipeError(
                f"{self.name}: the model gives a prompt no embedding: {sorted(set(filter(None, reasons)))}"
            )
        ends = np.cumsum([len(prompts) for prompts in told.values()])
        rows = np.split(embeddings.astype(np.float64), ends[:-1]) if told else []
        means = [unit(part).mean(axis=0) for part in (*rows, *self._learned().values())]
        return unit(np.stack(means)), model.logit_scale

    def _learned(self) -> dict[str, Doubles]:
        return read_prompts(Path(self.learned)) if self.learned else {}

    def _doubled(self) -> list[str]:
        return sorted(name for name in self.concepts if list(self.concepts).count(name) > 1)
