"""The rule: of captions that nearly say the same, the preferred row stays."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field, model_validator

from schemas.columns import CAPTION, COLUMNS
from schemas.errors import RecipeError
from stages.duplicates.minhash_captions.sketches import Sketch, sketch, together
from stages.duplicates.minhash_captions.witnesses import Fates, by_component, by_witness
from stages.near_texts import Cut, MinHash
from stages.near_texts.bands import buckets, choose_bands, found_share
from stages.near_texts.pairs import Likely
from stages.near_texts.shingles import Integers
from stages.near_texts.signatures import Scheme
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Rule, Verdict, drop_lines

SHOWN_GROUPS = 200
SHOWN_MEMBERS = 20
LONGEST_NGRAM = 16


def _text_name(column: str) -> str:
    field = COLUMNS.get(column)
    if field is not None and str(field.type) != "string":
        raise ValueError(f"column {column!r} holds {field.type}, not text; name a column of text")
    return column


class MinHashCaptions(Rule):
    """Drops rows whose caption nearly says what an earlier row's does, as `near_duplicate_caption`.

    Captions alone decide, whatever the images: right for text corpora and boilerplate, wrong for a pool in which many
    photographs share one good caption. Order: highest `prefer` first (nulls last), then uid. `groups: witness` drops a
    row iff a row before it that stays has a Jaccard index >= `threshold` with it: no chains, no row without witness.
    `groups: connected` keeps only the first row of each chain of such pairs, as other tools do. `duplicate_of` is that
    row. Both go by the pairs that were found: of those at the threshold the share `recall`, of closer ones more.
    Rows without a caption stay.
    Beyond one machine captions are hashed by part of the pool, a band is the partition of its candidates, and
    candidates are verified in pieces, with equal results; one process holds 8 bytes a band, 64 of a bitmap and the
    text of each distinct caption.
    """

    version: ClassVar[int] = 2
    likeness: ClassVar[str] = "Jaccard index of the n-grams"

    kind: Literal["minhash_captions"] = "minhash_captions"
    column: Annotated[str, AfterValidator(_text_name)] = CAPTION.name
    threshold: float = Field(0.7, ge=0.3, le=1)
    """With character trigrams 0.7 finds most edited web captions and few that only share a template."""
    ngrams: Literal["char", "word"] = "char"
    sizes: tuple[Annotated[int, Field(ge=1, le=LONGEST_NGRAM)], ...] = Field((3,), min_length=1, max_length=4)
    """n of the n-grams, e.g. [1, 2]. A caption shorter than the shortest is one n-gram by itself."""
    recall: float = Field(0.95, ge=0.5, lt=1)
    permutations: int = Field(192, ge=16, le=4096)
    """Minima a signature may have; more make fewer comparisons in vain."""
    compat: Scheme | None = None
    """Signatures bit-equal to datasketch's of this scheme, at five times the cost."""
    groups: Literal["witness", "connected"] = "witness"
    prefer: Annotated[str, AfterValidator(numeric_name)] | None = None

    @model_validator(mode="after")
    def _enough_permutations(self) -> "MinHashCaptions":
        try:
            choose_bands(self.threshold, self.recall, self.permutations)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    def columns(self) -> tuple[str, ...]:
        """The text, and the score that decides who survives."""
        return (self.column,) + ((self.prefer,) if self.prefer else ())

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Hash each part, look for pairs band by band, verify them, decide.

        Raises:
            RecipeError: the column holds no text, or `prefer` no numbers.
        """
        self._require_types(rows)
        how = MinHash(self.threshold, Cut(self.ngrams, self.sizes), self.recall, self.permutations, self.compat)
        bands, minima = choose_bands(self.threshold, self.recall, self.permutations)
        wanted, column = ["uid", *self.columns()], self.column
        parts = context.each_part(rows, lambda part: (len(part), sketch(part.select(wanted), column, how)))
        found = together([each for _, each in parts])
        ranked, order = in_order_of_rows(found, self.prefer)
        texts, keys = found.texts.gather(order), (keys[order] for keys in found.hashed.keys)
        likely = Likely(context.map(buckets, keys), found.hashed.bitmaps.at(order), self.threshold)
        decide = by_witness if self.groups == "witness" else by_component
        fates = decide(texts, likely, how, context.map)
        twins = twin_rows(ranked, fates)
        counted = {"without_text": sum(n for n, _ in parts) - len(ranked), "distinct_texts": len(texts)}
        chosen = {"threshold": self.threshold, "bands": bands, "minima_per_band": minima}
        expected = {"expected_recall_at_threshold": found_share(self.threshold, bands, minima)}
        evidence = chosen | expected | counted | _evidence(twins)
        return Verdict(drop_lines(twins, "near_duplicate_caption").sort("uid"), evidence=evidence)

    def _require_types(self, rows: pl.LazyFrame) -> None:
        if (dtype := rows.collect_schema()[self.column]) != pl.String:
            raise RecipeError(f"column {self.column!r} holds {dtype}, not text; name a column of text")
        if self.prefer:
            require_numeric(rows, self.prefer)


def in_order_of_rows(found: Sketch, prefer: str | None) -> tuple[pl.DataFrame, Integers]:
    """Rows, preferred ones first, and the texts' order: that of the first row that has them."""
    ranked = preferred_first(found.rows, prefer)
    _, first, text = np.unique(ranked["text"].to_numpy(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)
    return ranked.with_columns(pl.Series("text", rank[text])), order


def twin_rows(ranked: pl.DataFrame, fates: Fates) -> pl.DataFrame:
    """Rows that go: all of a text that goes, all but the first of one that stays; by uid, partner, similarity."""
    text = ranked["text"].to_numpy()
    _, first = np.unique(text, return_index=True)
    partner = np.where(fates.partner < 0, np.arange(len(first)), fates.partner)[text]
    witness = first[partner]
    lost = np.flatnonzero(witness != np.arange(len(text)))
    return pl.DataFrame(
        {
            "uid": ranked["uid"].gather(lost),
            "duplicate_of": ranked["uid"].gather(witness[lost]),
            "similarity": fates.jaccard[text[lost]],
        }
    )


def _evidence(twins: pl.DataFrame) -> dict[str, Any]:
    tenths = (twins["similarity"] * 20).floor() / 20
    counts = twins.select(tenths.alias("from")).group_by("from").len().sort("from")
    groups = twins.sort("uid").group_by("duplicate_of").agg("uid", "similarity")
    groups = groups.with_columns(pl.col("uid").list.len().alias("n"))
    shown = groups.sort("n", "duplicate_of", descending=[True, False]).head(SHOWN_GROUPS)
    return {
        "groups": len(groups),
        "similarities": {f"{low:.2f}": n for low, n in counts.iter_rows()},
        "largest_groups": [
            {"kept": kept, "dropped": n, "similarities": dict(zip(uids[:SHOWN_MEMBERS], found, strict=False))}
            for kept, uids, found, n in shown.iter_rows()
        ],
    }
