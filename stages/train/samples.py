"""Exported shards as training samples: which image, which caption tokens, in an order that no shard list decides."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.errors import CuveeError

Tokenize = Callable[[list[str]], list[list[int]]]
"""Captions to token ids, without special tokens."""
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ico", "ppm")


class Again(Protocol):
    """Reads the bytes of one image once more."""

    @property
    def shard(self) -> str:
        """Where it lies."""
        ...

    def __call__(self) -> bytes:
        """The bytes; what lies there now, which may be something else."""
        ...


@dataclass(frozen=True)
class Pair:
    """One sample as read; either part may be missing."""

    key: str
    image: bytes | None
    caption: str | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What was exported with it: the values of KEY.cuvee.json."""
    shard: str = ""
    """The tar it was read from; empty: unknown."""
    again: Again | None = field(default=None, compare=False)
    """Reads the image's bytes once more, alone; None: only all samples can be read."""

    @property
    def image_hash(self) -> str:
        """XXH3-128 of the image's bytes, as in the index."""
        return xxhash.xxh3_128_hexdigest(self.image or b"")


def read_pairs(shards: Sequence[str]) -> Iterator[Pair]:
    """Every sample of WebDataset tars, shard by shard in the given order.

    Raises:
        CuveeError: a shard cannot be read, or holds no sample.
    """
    import webdataset as wds

    for shard in shards:
        # One shard a time, unsplit: each process reads all of them and takes its share later, by image.
        samples = wds.WebDataset([shard], shardshuffle=False, nodesplitter=None, workersplitter=None, empty_check=False)
        try:
            yield from (replace(as_pair(sample), shard=shard) for sample in samples)
        except (OSError, ValueError, EOFError) as error:
            raise CuveeError(f"training shard {shard} cannot be read: {error}; export it again") from error


def as_pair(sample: Mapping[str, Any]) -> Pair:
    """What is trained on of a sample: `__key__`, and bytes by the suffix of the member they were."""
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in sample), None)
    text = sample.get("txt")
    caption = text.decode("utf-8", "replace") if text is not None else None
    columns = json.loads(sample.get("cuvee.json") or b"{}")
    columns = columns if isinstance(columns, dict) else {}
    return Pair(str(sample["__key__"]), sample[suffix] if suffix else None, caption, columns)


@dataclass
class Draft:
    """What is known of samples before captions are tokens: (key, image hash, caption, columns, shard) lines."""

    lines: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    columns: tuple[str, ...] = ()
    """Exported values that training asks for; they stand in a line as JSON."""
    text_only: bool = False
    """Captions are taken whether there is an image or not, and without it."""

    def add(self, pair: Pair, image_hash: str) -> None:
        """Take a sample, or count why it cannot be trained on."""
        if pair.image is None and not self.text_only:
            self.unusable["no_image"] += 1
        elif not (pair.caption or "").strip():
            self.unusable["no_caption"] += 1
        else:
            asked = json.dumps([pair.columns.get(name) for name in self.columns])
            shown = "" if self.text_only else image_hash
            self.lines.append((pair.key, shown, str(pair.caption), asked, pair.shard))


@dataclass(frozen=True)
class Corpus:
    """Samples in canonical order: by key, then image hash, then caption."""

    keys: tuple[str, ...]
    images: tuple[str, ...]
    """Image hash per sample; empty: text without an image."""
    tokens: npt.NDArray[np.int32]
    """Caption tokens of all samples, end to end."""
    offsets: npt.NDArray[np.int64]
    """(n + 1,) where each sample's tokens start."""
    whole: npt.NDArray[np.bool_]
    """(n,) False where the caption was cut at `max_tokens`."""
    unusable: Mapping[str, int]
    shards: tuple[str, ...] = ()
    """Where each sample was read from, for messages; empty: unknown."""
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """(n,) per exported value that training asks for; None where a sample has none."""

    def shard(self, sample: int) -> str:
        """The tar of one sample; empty: unknown."""
        return self.shards[sample] if self.shards else ""

    def __len__(self) -> int:
        return len(self.keys)

    def caption(self, sample: int) -> list[int]:
        """Caption tokens of one sample."""
        found: list[int] = self.tokens[self.offsets[sample] : self.offsets[sample + 1]].tolist()
        return found

    def labels(self, sample: int, end: int) -> list[int]:
        """What is predicted of one sample: its caption and, where that is whole, the end token."""
        return [*self.caption(sample), *([end] if self.whole[sample] else [])]

    def parts(self, names: Sequence[str]) -> "dict[str, Corpus]":
        """The samples by the name (n,) of each; names without a sample have no part, and order stays."""
        found = {}
        for name in sorted(set(names)):
            ids = [i for i, mine in enumerate(names) if mine == name]
            captions = [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in ids]
            found[name] = Corpus(
                keys=tuple(self.keys[i] for i in ids),
                images=tuple(self.images[i] for i in ids),
                tokens=np.concatenate(captions),
                offsets=np.cumsum([0, *(len(caption) for caption in captions)], dtype=np.int64),
                whole=self.whole[ids],
                unusable={},
                shards=tuple(self.shards[i] for i in ids) if self.shards else (),
                columns={name: tuple(values[i] for i in ids) for name, values in self.columns.items()},
            )
        return found

    @property
    def fingerprint(self) -> str:
        """32 hex digits over keys, image contents, tokens and what else is asked for."""
        digest = xxhash.xxh3_128()
        for key, image in zip(self.keys, self.images, strict=True):
            digest.update(f"{key}\0{image}\n".encode())
        for part in (self.tokens, self.offsets, self.whole):
            digest.update(part.tobytes())
        if self.columns:
            digest.update(json.dumps(self.columns, sort_keys=True).encode())
        return digest.hexdigest()


def corpus(draft: Draft, tokenize: Tokenize, undecodable: Mapping[str, str], max_tokens: int) -> Corpus:
    """Samples whose image has features, with their captions as at most `max_tokens` tokens.

    Args:
        draft: the samples read.
        tokenize: captions to token ids, without special tokens.
        undecodable: image hash to reason, for images that gave no features.
        max_tokens: where captions are cut.
    """
    unusable = draft.unusable + Counter(undecodable[image] for _, image, *_ in draft.lines if image in undecodable)
    lines = sorted(line for line in draft.lines if line[1] not in undecodable)
    captions = tokenize([line[2] for line in lines]) if lines else []
    kept = [(line, ids) for line, ids in zip(lines, captions, strict=True) if ids]
    unusable["no_caption"] += len(lines) - len(kept)
    cut = [ids[:max_tokens] for _, ids in kept]
    values = [json.loads(line[3]) for line, _ in kept]
    return Corpus(
        keys=tuple(line[0] for line, _ in kept),
        images=tuple(line[1] for line, _ in kept),
        tokens=np.array([token for ids in cut for token in ids], np.int32),
        offsets=np.cumsum([0, *(len(ids) for ids in cut)], dtype=np.int64),
        whole=np.array([len(ids) <= max_tokens for _, ids in kept], np.bool_),
        unusable=dict(sorted((+unusable).items())),
        shards=tuple(line[4] for line, _ in kept),
        columns={name: tuple(row[place] for row in values) for place, name in enumerate(draft.columns)},
    )
