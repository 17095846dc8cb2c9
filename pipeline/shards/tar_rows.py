"""Groups a tar's members into samples by the WebDataset convention; every byte range ends up in exactly one row."""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import TypeVar

import xxhash

from pipeline.shards.container import Container
from pipeline.shards.rows import (
    IMAGE_RANKS,
    MOST_CAPTION_BYTES,
    Row,
    RowBatch,
    caption_in_json,
    content_hash,
    is_unsafe,
    read_caption,
    split_name,
)
from pipeline.shards.streams import TarBytes
from pipeline.shards.tar_entries import Entry, TarWalk
from pipeline.shards.tar_runs import WindowSamples
from pipeline.shards.tar_window import Heads
from schemas.errors import ShardError

TEXTS = ("txt", "json")
MOST_MEMBERS = 1000
"""Of one sample: more are counted and not kept, since each takes more memory than the block it costs in the file."""
MOST_NAME = 4096
"""Characters: the longest path that systems open."""
T = TypeVar("T")
CUT_SHORT = ("missing_image", "missing_caption")


@dataclass(slots=True)
class Sample:
    """Consecutive members with one key."""

    key: str
    start: int
    stop: int
    entries: dict[str, Entry] = field(default_factory=dict)
    """By suffix; the first of several with the same."""
    others: list[Entry] = field(default_factory=list)
    """Repeated suffixes, links and what else cannot stand under a suffix."""
    reason: str | None = None
    """What is wrong with the sample as a whole; the first thing found."""
    cut: bool = False
    """Whether the file ends inside a member that was not kept."""
    image: tuple[str, Entry] | None = None
    """The preferred image so far, by suffix."""

    def add(self, entry: Entry, suffix: str) -> None:
        """Take the next member in."""
        self.stop, entry.suffix = entry.stop, suffix
        fault = self._fault(entry, suffix)
        if fault is None and not entry.cut:  # nearly every one
            if not self._looks_at(entry, suffix):
                entry.data = None  # hashed already, and nothing else will look at it
            self.entries[suffix] = entry
            return
        self.reason = self.reason or fault
        aside = suffix in self.entries or not entry.regular or entry.cut or len(entry.name) >= MOST_NAME
        entry.name = _short(entry.name)
        if len(self.entries) + len(self.others) >= MOST_MEMBERS:
            self.cut = self.cut or entry.cut
            return
        if aside or not self._looks_at(entry, suffix):
            entry.data = None
        if aside:
            self.others.append(entry)
        else:
            self.entries[suffix] = entry

    def _looks_at(self, entry: Entry, suffix: str) -> bool:
        """Whether the data of a new entry is still needed; of several images only the preferred one's is held."""
        if suffix in TEXTS:
            return entry.size <= MOST_CAPTION_BYTES
        if suffix not in IMAGE_RANKS:
            return False
        if self.image is not None and IMAGE_RANKS[self.image[0]] < IMAGE_RANKS[suffix]:
            return False
        if self.image is not None:
            self.image[1].data = None
        self.image = suffix, entry
        return True

    def _fault(self, entry: Entry, suffix: str) -> str | None:
        if is_unsafe(entry.name) or len(entry.name) >= MOST_NAME:
            return "unsafe_name"
        if len(self.entries) + len(self.others) >= MOST_MEMBERS:
            return "too_many_members"
        if not entry.regular:
            return "not_a_regular_file"
        if not suffix:
            return "not_a_sample"
        return "duplicate_member" if suffix in self.entries else None

    def row(self) -> Row:
        """Its line of the index, from `start` to `stop`."""
        _, image = self.image or (None, None)
        caption, caption_reason = self._caption()
        image_reason = "missing_image" if image is None else "member_too_large" if image.data is None else None
        whole = self._whole()
        return Row(
            start=self.start,
            stop=self.stop,
            key=self.key,
            caption=caption,
            image_member=image.name if image and image.data is not None else None,
            members=[(entry.name, entry.offset, entry.size) for entry in whole],
            image_hash=image.digest if image and image.data is not None else None,
            content_hash=content_hash([(entry.suffix, entry.size, str(entry.digest)) for entry in whole]),
            reason=self.reason or image_reason or caption_reason,
            image=image.data if image else None,
        )

    def _whole(self) -> list[Entry]:
        if not self.others:
            return list(self.entries.values())
        found = [*self.entries.values(), *self.others]
        return sorted((entry for entry in found if entry.regular and not entry.cut), key=lambda entry: entry.offset)

    def _caption(self) -> tuple[str | None, str | None]:
        document, text = self.entries.get("json"), self.entries.get("txt")
        in_json, fault = (None, None) if document is None else _told(document, caption_in_json)
        caption, reason = read_caption(in_json) if text is None else _told(text, read_caption)
        return caption, fault or reason


def _told(entry: Entry, read: Callable[[bytes], tuple[T | None, str | None]]) -> tuple[T | None, str | None]:
    return (None, "member_too_large") if entry.data is None else read(entry.data)


class TarRows:
    """One pass over a tar: iterate the rows, then ask for digest and sizes."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.digest = ""
        self.total = 0
        """Size of the uncompressed tar."""
        self._seen: set[str] = set()
        self._suffixes: Set[str] = frozenset()
        """What the last closed sample had."""
        self._border = 0
        """Where the last row ended and the next begins."""
        self._window: tuple[Heads, WindowSamples] | None = None

    def __iter__(self) -> Iterator[Row | RowBatch]:
        """Rows in order.

        Raises:
            ShardError: nothing can be read at all (`empty_shard` where there are end blocks and no member: a download
                that only got its size), or reading fails in the middle.
        """
        stream = TarBytes(self.container.path)
        try:
            walk = TarWalk(stream, self.container.path)
            yield from self._rows(walk)
            self.digest, self.total = stream.finish(), walk.position
            if not self._border and walk.reason is None:
                raise ShardError(f"{self.container.path} is {self.total} bytes of no sample", "empty_shard")
        finally:
            stream.close()

    def _rows(self, walk: TarWalk) -> Iterator[Row | RowBatch]:
        sample: Sample | None = None
        yield from self._usual(walk)
        for entry in walk:
            key, suffix = split_name(entry.name)
            key = _short(key)
            if sample is not None and sample.key != key:
                yield self._closed(sample)
                sample = None
            sample = sample or Sample(key, self._border, entry.stop)
            sample.add(entry, suffix)
            if (name := walk.next_name()) is not None and split_name(name)[0] != key:
                yield self._closed(sample)
                sample = None
                yield from self._usual(walk)
        yield from self._ending(walk, sample)

    def _usual(self, walk: TarWalk) -> Iterator[RowBatch]:
        """Samples with nothing unusual about them, as many as come next; to be asked between samples."""
        while walk.next_name() is not None:
            window = walk.window
            if self._window is None or self._window[0] is not window.heads:
                self._window = window.heads, WindowSamples(window.heads, window.bytes)
            if (found := self._window[1].batch(window.at, walk.position)) is None:
                return
            batch, self._suffixes = found
            walk.pass_over(batch.stops[-1] - walk.position, len(batch.names))
            for number, key in enumerate(batch.keys):
                if key in self._seen:
                    batch.reasons[number] = "duplicate_key"
                self._seen.add(key)
            batch.starts[0], self._border = self._border, batch.stops[-1]
            yield batch

    def _closed(self, sample: Sample) -> Row:
        if sample.key in self._seen:
            sample.reason = sample.reason or "duplicate_key"
        self._seen.add(sample.key)
        self._suffixes = sample.entries.keys()
        row = sample.row()
        self._border = row.stop
        return row

    def _ending(self, walk: TarWalk, last: Sample | None) -> Iterator[Row]:
        """The last sample, and one row for what follows if that is no end of a tar."""
        cut_short = last is not None and is_cut_short(last, self._suffixes, walk)
        row = None if last is None else self._closed(last)
        if row is not None and not cut_short:
            yield row
        if walk.reason is None and not cut_short:
            return
        tail = row if row and cut_short else Row(self._border, walk.position, key=_cut_key(walk))
        tail.stop, tail.reason = walk.position, walk.reason or "truncated_shard"
        yield tail


def is_cut_short(last: Sample, usual: Set[str], walk: TarWalk) -> bool:
    """Whether the last sample before a bad end is part of what was lost.

    It is when its data is cut, when what is left of the next header carries its key, or when it lacks an image, a
    caption, or a member that the sample before it (suffixes `usual`) had. Nothing tells a cut between two members
    from a shorter sample, and a sample that may be incomplete must not pass for whole.
    """
    if walk.marked_end:
        return False
    if last.cut or any(entry.cut for entry in last.others) or walk.fragment_name.startswith(f"{last.key}."):
        return True
    if split_name(walk.fragment_name)[1]:
        return False  # another sample had begun
    return last.row().reason in CUT_SHORT or last.entries.keys() < usual


def _short(name: str) -> str:
    """The name, or what stands for one that no system could open and that could fill memory by the thousands."""
    if len(name) < MOST_NAME:
        return name
    return f"{name[:200]}...{xxhash.xxh3_128_hexdigest(name.encode(errors='surrogatepass'))}"


def _cut_key(walk: TarWalk) -> str | None:
    """Key of a sample of which only a piece of its first header is left."""
    key, suffix = split_name(walk.fragment_name)
    return _short(key) if suffix and walk.reason == "truncated_shard" else None
