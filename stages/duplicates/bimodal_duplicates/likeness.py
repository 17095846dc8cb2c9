"""What may count as the same image, and what as the same caption."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.columns import CAPTION, GREY_DEVIATION, IMAGE_EMBEDDING, IMAGE_HASH, PHASH, PHASH_TURNED
from schemas.errors import ContractError
from stages.duplicates.bimodal_duplicates.alike import Alike, classes_of, nothing_alike, with_pairs
from stages.duplicates.bimodal_duplicates.asked import Texts
from stages.hamming import close_pairs, close_turned_pairs, similarity
from stages.near_texts import MinHash
from stages.near_texts.sets import normal_texts
from stages.near_vectors.neighbours import MOST_CLUSTERS, Clustering, Compared
from stages.rule import Context
from stages.vectors import Vectors


@dataclass(frozen=True)
class Rows:
    """What is judged."""

    ranked: pl.DataFrame
    """(uid) in the order in which rows go before each other."""
    rows: pl.LazyFrame
    context: Context

    def column(self, *names: str) -> pl.DataFrame:
        """Columns in that order."""
        found = self.rows.select("uid", *names).collect()
        return self.ranked.select("uid").join(found, on="uid", how="left", maintain_order="left")


class Likeness(BaseModel):
    """One way to say that two rows are alike on one side.

    Of images `alike` gives which rows are, and the centroids, if any were needed; of captions `captions` gives either
    that or the texts to compare.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        raise ContractError(f"{type(self).__name__} does not implement columns()")


class ExactImages(Likeness):
    """Equal bytes."""

    kind: Literal["exact"] = "exact"

    def columns(self) -> tuple[str, ...]:
        """The content hash."""
        return (IMAGE_HASH.name,)

    def alike(self, given: Rows) -> tuple[Alike, None]:
        """Classes alone."""
        return Alike(classes_of(given.column(IMAGE_HASH.name)[IMAGE_HASH.name])[0]), None


class NearImages(Likeness):
    """Perceptual hashes within `max_distance` of 64 bits, of images that are not flat; see `near_duplicate_images`."""

    kind: Literal["near"] = "near"
    max_distance: int = Field(4, ge=0, le=16)
    min_deviation: float = Field(4.0, ge=0, le=128)
    turned: bool = False

    def columns(self) -> tuple[str, ...]:
        """Hash or hashes, and deviation."""
        return ((PHASH_TURNED if self.turned else PHASH).name, GREY_DEVIATION.name)

    def alike(self, given: Rows) -> tuple[Alike, None]:
        """Equal hashes are a class."""
        hashed, deviation = self.columns()
        table = given.column(hashed, deviation)
        usable = pl.col(hashed).is_not_null() & (pl.col(deviation) >= self.min_deviation)
        keys = table.select(pl.when(usable).then(hashed).alias(hashed))[hashed]
        classes, first = classes_of(
            keys.list.eval(pl.element().cast(pl.String)).list.join(",") if self.turned else keys
        )
        distinct = keys.gather(first)
        if self.turned:
            matrix = distinct.explode().to_numpy().reshape(len(first), -1 if len(first) else 1)
            pairs = close_turned_pairs(matrix, self.max_distance, given.context.map)
        else:
            pairs = close_pairs(distinct.to_numpy(), self.max_distance, given.context.map)
        return with_pairs(classes, pairs.first, pairs.second, similarity(pairs.distance)), None


class SemanticImages(Likeness):
    """Image embeddings whose cosine exceeds 1 - epsilon, in the same or in neighbouring clusters; see `semdedup`."""

    kind: Literal["semantic"] = "semantic"
    epsilon: float = Field(gt=0, le=1)
    clusters: int | None = Field(None, gt=0, le=MOST_CLUSTERS)
    probe: Annotated[int, Field(ge=1, le=8)] = 2

    def columns(self) -> tuple[str, ...]:
        """The embedding."""
        return (IMAGE_EMBEDDING.name,)

    def alike(self, given: Rows) -> tuple[Alike, Vectors | None]:
        """Equal embeddings are a class."""
        fit = given.context.fit
        pinned = fit.arrays["centroids"].astype(np.float16) if fit else None
        clustering = Clustering(Compared(IMAGE_EMBEDDING.name), self.clusters, self.probe)
        found = clustering.neighbours(given.rows, given.context, pinned, collapse=True)
        if found is None:
            return nothing_alike(len(given.ranked)), pinned
        near, centroids = found
        placed = pl.DataFrame({"uid": near.uids, "digest": near.digests}).with_row_index("place")
        ranked = given.ranked.select("uid").join(placed, on="uid", how="left", maintain_order="left")
        classes, first = classes_of(ranked["digest"])
        order = ranked["place"].drop_nulls().to_numpy().astype(np.int64)
        chosen = np.zeros(len(order), np.bool_)
        chosen[ranked["place"].gather(first).to_numpy()] = True
        one, other, value = near.above(order, chosen, 1 - self.epsilon)
        of_rank = classes[classes >= 0]
        return with_pairs(classes, of_rank[one], of_rank[other], value.round(12)), centroids


class ExactCaptions(Likeness):
    """Equal text."""

    kind: Literal["exact"] = "exact"

    def columns(self) -> tuple[str, ...]:
        """The caption."""
        return (CAPTION.name,)

    def captions(self, given: Rows) -> Alike:
        """Classes alone; an empty caption is like nothing."""
        captions = given.column(CAPTION.name)
        return Alike(
            classes_of(captions.select(pl.when(pl.col(CAPTION.name) != "").then(CAPTION.name))[CAPTION.name])[0]
        )


class NearCaptions(Likeness):
    """Normal forms whose sets of character 3-grams have a Jaccard index >= `threshold`; see `minhash_captions`."""

    kind: Literal["near"] = "near"
    threshold: float = Field(0.8, ge=0.3, le=1)
    recall: float = Field(0.95, ge=0.5, lt=1)

    def columns(self) -> tuple[str, ...]:
        """The caption."""
        return (CAPTION.name,)

    def captions(self, given: Rows) -> Texts:
        """Equal normal forms are a class; an empty one is like nothing."""
        parts = given.context.each_part(given.rows, _normal)
        found = given.ranked.select("uid").join(pl.concat(parts), on="uid", how="left", maintain_order="left")
        classes, first = classes_of(found["text"])
        how = MinHash(self.threshold, recall=self.recall)
        return Texts(classes, found["text"].gather(first), how, given.context.map)


def _normal(part: pl.DataFrame) -> pl.DataFrame:
    """(uid, text) of the rows that have one."""
    return part.select("uid", normal_texts(part[CAPTION.name])).filter(pl.col("text") != "")


def _named(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else given


Images = Annotated[ExactImages | NearImages | SemanticImages, Field(discriminator="kind")]
Captions = Annotated[ExactCaptions | NearCaptions, Field(discriminator="kind")]
AsNamed = BeforeValidator(_named)
