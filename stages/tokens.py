"""The tokens of many texts at once, as numbers of distinct words: nltk's WordPunctTokenizer over lower-cased text.

A token is a run of word characters (`\\w`) or of other characters that are no space, as Python's `re` and `str.lower`
see them. ASCII, most of a web pool, is cut by a table over all bytes at once. A piece between ASCII white space that
holds any other character is decoded and meets the regular expression itself, once for each distinct piece: no token
spans white space, and `str.lower`, which looks around a capital sigma, does not look beyond it.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

TOKEN = re.compile(r"\w+|[^\w\s]+")
SPACE, WORD, OTHER, RICH = range(4)
"""What a byte is: ASCII white space, an ASCII word character, other ASCII, part of a piece that is not all ASCII."""
ASCII = [chr(code) for code in range(128)]
KIND = np.array(
    [SPACE if char.isspace() else WORD if re.match(r"\w", char) else OTHER for char in ASCII] + [RICH] * 128, np.uint8
)
SPACES = "".join(filter(str.isspace, ASCII)).encode()
LOWER = bytes(range(256)).lower()


@dataclass(frozen=True)
class Tokens:
    """The tokens of n texts, one after the other."""

    words: list[bytes]
    """UTF-8; a word may stand here twice."""
    ids: npt.NDArray[np.integer]
    """Places in `words`."""
    counts: Integers
    """(n,) tokens of each text."""

    def begins(self, i: int) -> npt.NDArray[np.bool_]:
        """True at each place of `ids` where an i-gram starts that ends inside its text."""
        found = np.ones(len(self.ids), np.bool_)
        ends = np.cumsum(self.counts)
        for j in range(1, i):
            found[ends[self.counts >= j] - j] = False
        return found


def tokenise(texts: pl.Series) -> Tokens:
    """Lower-cased tokens of n texts without nulls; a text without any counts 0."""
    data, offsets = _bytes(texts)
    starts, lengths = _runs(data, offsets)
    packed = data.tobytes().translate(LOWER, SPACES)  # the runs, end to end
    ends = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(packed)]
    coded = pa.Array.from_buffers(pa.large_binary(), len(starts), buffers).dictionary_encode()
    runs: list[bytes] = coded.dictionary.to_pylist()
    return _split_rich(runs, coded.indices.to_numpy(), np.searchsorted(starts, offsets))


def token_counts(texts: pl.Series) -> pl.Series:
    """(n,) tokens of each text; none is null."""
    return pl.Series(texts.name, tokenise(texts).counts)


def _bytes(texts: pl.Series) -> tuple[Bytes, Integers]:
    """All texts end to end, and the (n + 1,) places where each begins."""
    array = texts.to_arrow().cast(pa.large_string())
    _, places, data = array.buffers()
    if data is None:
        return np.zeros(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(places, np.int64)[array.offset :][: len(array) + 1]
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _runs(data: Bytes, offsets: Integers) -> tuple[Integers, Integers]:
    """Where the runs of bytes of one kind start, spaces left out, and how long they are; no run spans two texts."""
    kind = KIND[data]
    heads = offsets[:-1][offsets[:-1] < len(data)]
    high = np.flatnonzero(kind == RICH)
    if len(high):
        _spread(kind, high, heads)
    starts = np.flatnonzero(_edges(kind, heads))
    solid = kind[starts] != SPACE
    return starts[solid], np.diff(starts, append=len(data))[solid]


def _edges(kind: npt.NDArray[np.generic], heads: Integers) -> npt.NDArray[np.bool_]:
    found = np.ones(len(kind), np.bool_)
    np.not_equal(kind[1:], kind[:-1], out=found[1:])
    found[heads] = True
    return found


def _spread(kind: Bytes, high: Integers, heads: Integers) -> None:
    """Mark the whole piece, from white space to white space, around each `high` byte as rich, in place."""
    starts = np.flatnonzero(_edges(kind != SPACE, heads))
    rich = np.unique(np.searchsorted(starts, high, "right") - 1)
    step = np.zeros(len(kind) + 1, np.int8)
    step[starts[rich]] += 1
    step[np.append(starts, len(kind))[rich + 1]] -= 1
    kind[np.cumsum(step[:-1], dtype=np.int8) > 0] = RICH


def _split_rich(runs: list[bytes], used: npt.NDArray[np.int32], bounds: Integers) -> Tokens:
    """Runs into tokens: `used` places in `runs`, those of text t from bounds[t] to bounds[t + 1]."""
    rich = np.flatnonzero(~np.fromiter(map(bytes.isascii, runs), np.bool_, len(runs)))
    if not len(rich):
        return Tokens(runs, used, np.diff(bounds))
    tokens = [TOKEN.findall(runs[place].decode().lower()) for place in rich.tolist()]
    sizes, first = np.ones(len(runs), np.int64), np.arange(len(runs))
    sizes[rich] = [len(found) for found in tokens]
    first[rich] = len(runs) + np.cumsum(sizes[rich]) - sizes[rich]
    words = runs + [token.encode() for found in tokens for token in found]
    taken = sizes[used]
    ends = np.append(0, np.cumsum(taken))
    ids = np.repeat(first[used] - ends[:-1], taken) + np.arange(ends[-1])
    return Tokens(words, ids, np.diff(ends[bounds]))
