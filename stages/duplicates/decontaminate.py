"""Removes from the pool what an evaluation set holds: by image bytes, by hash, by embedding, by caption.

Reference sets are small beside a pool, so each part of the pool is compared with all of them, wherever it is.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field, model_validator

from schemas.columns import CAPTION, GREY_DEVIATION, IMAGE_EMBEDDING, IMAGE_HASH, PHASH, PHASH_TURNED
from stages.duplicate_groups import group_evidence
from stages.hamming import closest, similarity
from stages.near_texts import MinHash
from stages.near_texts.bands import choose_bands, found_share
from stages.near_texts.sets import closest_texts, normal_texts
from stages.near_vectors.neighbours import Compared
from stages.near_vectors.references import closest_references
from stages.rule import Context, Rule, Verdict, drop_lines

Way = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""Rows and references -> (uid, duplicate_of, similarity) of the rows that match, with the closest reference of each."""
RECALL = 0.9999
"""Of captions at `jaccard` so many are found, of closer ones more: contamination that is missed is not seen again."""
MATCHES = {"uid": pl.String, "duplicate_of": pl.String, "similarity": pl.Float64}


def _names(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


class Decontaminate(Rule):
    """Drops rows that match a sample of a reference set, as `matches_reference`; `duplicate_of` names that sample.

    A row matches by equal image bytes, by perceptual hashes within `max_distance` bits, by image embeddings with a
    cosine above `cosine`, or by captions whose sets of character 3-grams have a Jaccard index of at least `jaccard`, of
    which at most 1 in 10,000 is expected to be missed; null turns one off. Named is the closest partner by the first of
    these that finds one; ties go by the order of `against`, then by uid. Flat images match by their bytes alone. Parts
    of the pool are the partition key, with equal results.
    """

    version: ClassVar[int] = 3
    likeness: ClassVar[str] = "1 for equal bytes, else share of 64 bits, cosine or Jaccard index: what matched first"

    kind: Literal["decontaminate"] = "decontaminate"
    against: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
    """Names of the recipe's `references`."""
    exact: bool = True
    """Equal image bytes."""
    max_distance: int | None = Field(4, ge=0, le=16)
    """Bits of 64 between perceptual hashes."""
    turned: bool = False
    """Also compare the hash with those of the reference's image turned and mirrored."""
    min_deviation: float = Field(4.0, ge=0, le=128)
    """Grey levels; flatter images share hashes without being alike."""
    cosine: float | None = Field(None, ge=0, lt=1)
    jaccard: float | None = Field(None, ge=0.3, le=1)

    @model_validator(mode="after")
    def _something(self) -> "Decontaminate":
        if not self._ways():
            raise ValueError("every way to match is off; name one of `exact`, `max_distance`, `cosine`, `jaccard`")
        if self.turned and self.max_distance is None:
            raise ValueError("`turned` is about hashes, and `max_distance` is null; name both or none")
        return self

    def columns(self) -> tuple[str, ...]:
        """What is compared."""
        reads = {
            "image": (IMAGE_HASH.name,),
            "hash": ((PHASH_TURNED if self.turned else PHASH).name, GREY_DEVIATION.name),
            "embedding": (IMAGE_EMBEDDING.name,),
            "caption": (CAPTION.name,),
        }
        return tuple(name for way in self._ways() for name in reads[way])

    def needs_references(self) -> tuple[str, ...]:
        """The sets to compare with."""
        return self.against

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare every part with every set.

        Raises:
            CuveeError: embeddings of unequal length: two models were mixed.
        """
        sets = {name: context.references[name].sort("uid").collect() for name in self.against}
        ways = self._ways()
        found = pl.concat(context.each_part(rows, partial(_matches, ways=ways, sets=sets)))
        number = pl.col("by").replace_strict({way: place for place, way in enumerate(ways)}, return_dtype=pl.Int64)
        place = pl.col("set").replace_strict({name: at for at, name in enumerate(self.against)}, return_dtype=pl.Int64)
        keys = ["uid", number, -pl.col("similarity"), place, "duplicate_of"]
        named = found.sort(keys).unique("uid", keep="first", maintain_order=True)
        evidence = {"hits": _hits(found, self.against, ways), "named_by": _counts(named, "by"), **group_evidence(named)}
        if self.jaccard is not None:
            bands, minima = choose_bands(self.jaccard, RECALL, MinHash.permutations)
            evidence["expected_recall_at_jaccard"] = found_share(self.jaccard, bands, minima)
        return Verdict(drop_lines(named, "matches_reference").sort("uid"), evidence=evidence)

    def _ways(self) -> dict[str, Way]:
        """What is on, in the order in which it names partners."""
        by_bits = partial(by_hash, most=self.max_distance or 0, turned=self.turned, flat=self.min_deviation)
        ways: dict[str, Way | None] = {
            "image": by_image if self.exact else None,
            "hash": None if self.max_distance is None else by_bits,
            "embedding": None if self.cosine is None else partial(by_embedding, above=self.cosine),
            "caption": None if self.jaccard is None else partial(by_caption, threshold=self.jaccard),
        }
        return {name: way for name, way in ways.items() if way is not None}


def by_image(rows: pl.DataFrame, references: pl.DataFrame) -> pl.DataFrame:
    """Equal bytes."""
    first = references.group_by(IMAGE_HASH.name).agg(pl.col("uid").min().alias("duplicate_of"))
    return rows.join(first, on=IMAGE_HASH.name).select("uid", "duplicate_of", pl.lit(1.0).alias("similarity"))


def by_hash(rows: pl.DataFrame, references: pl.DataFrame, most: int, turned: bool, flat: float) -> pl.DataFrame:
    """Hashes within `most` bits, of images that are not flat."""
    name = (PHASH_TURNED if turned else PHASH).name
    usable = pl.col(name).is_not_null() & (pl.col(GREY_DEVIATION.name) >= flat)
    rows, references = rows.filter(usable), references.filter(usable)
    upright = rows[name].list.first() if turned else rows[name]
    known = references.explode(name) if turned else references
    place, distance = closest(upright.to_numpy(), known[name].to_numpy(), most)
    return _pairs(rows, known, place, similarity(distance))


def by_embedding(rows: pl.DataFrame, references: pl.DataFrame, above: float) -> pl.DataFrame:
    """Cosines above a bound."""
    compared = Compared(IMAGE_EMBEDDING.name)
    rows, references = (compared.known(each.lazy()).collect() for each in (rows, references))
    if rows.is_empty() or references.is_empty():
        return pl.DataFrame(schema=MATCHES)
    others, _ = compared.matrices(references, 0)
    place, cosine = closest_references(compared.matrices(rows, others.shape[1])[0], others, above)
    return _pairs(rows, references, place, cosine.round(12))


def by_caption(rows: pl.DataFrame, references: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Captions of a Jaccard index of `threshold` and more."""
    texts = rows.select("uid", normal_texts(rows[CAPTION.name])).filter(pl.col("text") != "")
    known = references.select("uid", normal_texts(references[CAPTION.name])).unique(
        "text", keep="first", maintain_order=True
    )
    asked = texts["text"].unique(maintain_order=True)
    place, jaccard = closest_texts(asked, known["text"], MinHash(threshold, recall=RECALL))
    matches = _pairs(asked.to_frame(), known, place, jaccard)
    return texts.join(matches, on="text").select(MATCHES.keys())


def _pairs(rows: pl.DataFrame, references: pl.DataFrame, place: Any, alike: Any) -> pl.DataFrame:
    """The rows that have a partner, with it; place is -1 for those that have none."""
    found = np.flatnonzero(place >= 0)
    partners = {"duplicate_of": references["uid"].gather(place[found]), "similarity": alike[found]}
    named = [name for name in ("uid", "text") if name in rows.columns]
    return rows.select(named)[found].with_columns(**partners)


def _matches(part: pl.DataFrame, ways: Mapping[str, Way], sets: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """(set, by, uid, duplicate_of, similarity): per row, set and way the closest partner."""
    found = [pl.DataFrame(schema={"set": pl.String, "by": pl.String, **MATCHES})]
    for name, references in sets.items():
        for by, way in ways.items():
            label = [pl.lit(name).alias("set"), pl.lit(by).alias("by")]
            found.append(way(part, references).select(*label, *MATCHES))
    return pl.concat(found)


def _hits(found: pl.DataFrame, names: tuple[str, ...], ways: Mapping[str, Way]) -> dict[str, dict[str, int]]:
    """Per set, how many rows match it: by each way, those that match by several in each, and in any way."""
    hits = {}
    for name in names:
        own = found.filter(pl.col("set") == name)
        counts = _counts(own, "by")
        hits[name] = {"rows": own["uid"].n_unique(), **{by: counts.get(by, 0) for by in ways}}
    return hits


def _counts(lines: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(lines.group_by(column).len().sort(column).iter_rows())
