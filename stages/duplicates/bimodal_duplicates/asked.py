"""Captions that may be close, of which only those are compared that somebody asks for."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import polars as pl

from stages.duplicates.bimodal_duplicates.alike import Alike, Places, with_pairs
from stages.near_texts import MinHash
from stages.near_texts.bands import buckets, load
from stages.near_texts.pairs import Hashed, Likely, Pairs, Piece, joined, pieces, verified
from stages.near_texts.shingles import Flags, scrambled
from stages.rule import Mapper, in_order

BLOCK_TEXTS = 1 << 16
"""Texts that are Python objects at a time."""
MOST_CANDIDATES = 1 << 20
"""Candidates of one comparison within rows, as `load` counts them: what is close of them is held, at 200 bytes each."""
PIECES_AT_A_TIME = 16


@dataclass(frozen=True)
class Texts:
    """n rows in order, and the distinct normal forms that they have."""

    classes: Places
    """(n,) place among `texts`; -1: like nothing."""
    texts: pl.Series
    how: MinHash
    map: Mapper = in_order


@dataclass(frozen=True)
class Asked:
    """The texts of some rows; rows of two groups are never compared."""

    given: Texts
    places: Places
    """(n,) a number for each group and text of the rows asked for; -1: none."""
    texts: Places
    """(p,) the text of each place."""
    hashed: Hashed = field(repr=False)
    """Of each place, with other keys in each group."""

    @classmethod
    def of(cls, given: Texts, rows: Places, groups: Places) -> "Asked":
        """The texts of the given rows that have one, in the groups (n,) >= 0."""
        rows = rows[given.classes[rows] >= 0]
        codes = groups[rows] * len(given.texts) + given.classes[rows]
        distinct, local = np.unique(codes, return_inverse=True)
        places = np.full(len(given.classes), -1, np.int64)
        places[rows] = local
        group, texts = np.divmod(distinct, max(len(given.texts), 1))
        used, at = np.unique(texts, return_inverse=True)
        blocks = [used[begin : begin + BLOCK_TEXTS] for begin in range(0, len(used), BLOCK_TEXTS)] or [used]
        hashed = Hashed.joined([given.how.hashed(given.texts.gather(block).to_list()) for block in blocks]).at(at)
        return cls(given, places, texts, replace(hashed, keys=hashed.keys ^ scrambled(group.astype(np.uint64))))

    def within(self, rows: Places) -> Alike | None:
        """All that is close among the texts of these rows; None where that may be too much to hold."""
        places = self._of(rows)
        likely, everywhere = self._likely(places), np.ones(len(places), np.bool_)
        if len(rows) > 1 and load(likely.bands, everywhere, everywhere) > MOST_CANDIDATES:
            return None
        return self._close(places, self._verified(self._pieces(places, likely, everywhere, everywhere)))

    def between(self, kept: Places, later: Places) -> Iterator[tuple[Places, Alike]]:
        """Per some of the later rows, all that is close of the kept ones; last the rows for which there is nothing."""
        first, second = self._of(kept), self._of(later)
        places, earlier = np.concatenate([first, second]), np.arange(len(first) + len(second)) < len(first)
        of_later = self.places[later]
        left = np.ones(len(later), np.bool_)
        found = self._pieces(places, self._likely(places), earlier, ~earlier)
        while some := list(islice(found, PIECES_AT_A_TIME)):
            pairs = self._verified(some)
            now = left & np.isin(of_later, places[pairs.second])  # all pairs of a second place are in one piece
            left &= ~now
            yield later[now], self._close(places, pairs)
        yield later[left], Alike(self.given.classes)

    def _of(self, rows: Places) -> Places:
        places = self.places[rows]
        return np.unique(places[places >= 0])

    def _likely(self, places: Places) -> Likely:
        bands = self.given.map(buckets, (keys[places] for keys in self.hashed.keys))
        return Likely(bands, self.hashed.bitmaps.at(places), self.given.how.threshold)

    def _pieces(self, places: Places, likely: Likely, earlier: Flags, later: Flags) -> Iterator[Piece]:
        return pieces(self.given.texts.gather(self.texts[places]), likely, earlier, later)

    def _verified(self, some: Iterator[Piece] | list[Piece]) -> Pairs:
        how = self.given.how
        return joined(self.given.map(lambda piece: verified(piece, how), some))

    def _close(self, places: Places, pairs: Pairs) -> Alike:
        texts = self.texts[places]
        return with_pairs(self.given.classes, texts[pairs.first], texts[pairs.second], pairs.jaccard)
