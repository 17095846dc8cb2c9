"""The rule: what is alike on both sides, or on either, leaves the best of them."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, model_validator

from stages.duplicate_groups import group_evidence
from stages.duplicates.bimodal_duplicates.alike import nothing_alike
from stages.duplicates.bimodal_duplicates.likeness import AsNamed, Captions, Images, Rows
from stages.duplicates.bimodal_duplicates.witnesses import witnesses
from stages.fit import Fit
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Rule, Verdict, drop_lines


class BimodalDuplicates(Rule):
    """Drops a row iff a kept row that goes before it has a like image and a like caption (`when: either`: or).

    Order: highest `prefer` first (nulls last), then uid; so the best of a group stays, and there are no chains.
    `duplicate_of` is the first such kept row, `similarity` the lesser of both (`either`: the greater). A row with
    nothing to compare by on a side is like no other on that side. With one side named alone, that side decides.
    `merge_captions: true`, of images alone, drops as `merged_caption` instead of `bimodal_duplicate`, and the captions
    of what is dropped go with the row that stays: name `captions` under `export.columns`.
    Near captions are compared only where that decides: with `both` among rows that like images join, and in crowds
    with rows that are kept; so neither time nor memory goes by the number of close captions.
    Beyond one machine captions are brought into their normal form by part of the pool, and close images and captions
    are looked for by pairs of chunks, clusters and bands, with equal results.
    Learned, where images are compared by embedding: the centroids.
    """

    version: ClassVar[int] = 2
    likeness: ClassVar[str] = "share of 64 bits, cosine or Jaccard index, of the side that decides"

    kind: Literal["bimodal_duplicates"] = "bimodal_duplicates"
    images: Annotated[Images | None, AsNamed] = None
    captions: Annotated[Captions | None, AsNamed] = None
    when: Literal["both", "either"] = "both"
    prefer: Annotated[str, AfterValidator(numeric_name)] | None = None
    merge_captions: bool = False

    @model_validator(mode="after")
    def _something(self) -> "BimodalDuplicates":
        if self.images is None and self.captions is None:
            raise ValueError("found neither `images` nor `captions`; name what is compared")
        if self.merge_captions and (self.images is None or self.captions is not None):
            raise ValueError("`merge_captions` gathers the captions of one image: name `images` and no `captions`")
        return self

    def columns(self) -> tuple[str, ...]:
        """What is compared, and the score that decides who survives."""
        sides = [side.columns() for side in (self.images, self.captions) if side is not None]
        names = [name for side in sides for name in side] + ([self.prefer] if self.prefer else [])
        return tuple(dict.fromkeys(names))

    def merges_captions(self) -> bool:
        """As it is set."""
        return self.merge_captions

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare each side, then decide row by row.

        Raises:
            RecipeError: `prefer` holds no numbers.
            CuveeError: embeddings of unequal length or of length zero, or more pairs are close than can be held.
        """
        if self.prefer:
            require_numeric(rows, self.prefer)
        table = rows.select("uid", *([self.prefer] if self.prefer else [])).collect()
        given = Rows(preferred_first(table, self.prefer), rows, context)
        unlike = nothing_alike(len(table))
        images, centroids = self.images.alike(given) if self.images else (unlike, None)
        captions = self.captions.captions(given) if self.captions else unlike
        both = self.when == "both" and self.images is not None and self.captions is not None
        partner, similarity = witnesses(images, captions, both)
        lost = np.flatnonzero(partner >= 0)
        uids = given.ranked["uid"]
        pairs: dict[str, Any] = {"uid": uids.gather(lost), "duplicate_of": uids.gather(partner[lost])}
        twins = pl.DataFrame({**pairs, "similarity": similarity[lost]}, schema_overrides={"similarity": pl.Float64})
        reason = "merged_caption" if self.merge_captions else "bimodal_duplicate"
        alone = {"images": int((images.classes < 0).sum()), "captions": int((captions.classes < 0).sum())}
        named = {side: count for side, count in alone.items() if getattr(self, side) is not None}
        evidence = group_evidence(twins) | {"nothing_to_compare": named}
        return Verdict(drop_lines(twins, reason).sort("uid"), evidence=evidence, fit=self._fit(context, centroids))

    def _fit(self, context: Context, centroids: Any) -> Fit | None:
        learned = Fit({"centroids": centroids.astype(np.float32)}) if centroids is not None else None
        return context.fit or learned
