"""Where the bytes of images lie, so that training can read them again one by one: members of plain tars, by offset."""

import tarfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import xxhash

from schemas.errors import CuveeError
from stages.train.samples import IMAGE_SUFFIXES, Again, Pair


@dataclass(frozen=True, slots=True)
class TarMember:
    """The bytes of a member of a tar without compression."""

    shard: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        """The bytes; fewer where the tar ends.

        Raises:
            CuveeError: the tar cannot be read.
        """
        try:
            with open(self.shard, "rb") as stream:
                stream.seek(self.offset)
                return stream.read(self.size)
        except OSError as error:
            raise CuveeError(f"training shard {self.shard} cannot be read: {error}; export it again") from error


def placed(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Samples of `read_pairs`, each told where its image lies.

    Raises:
        CuveeError: a tar that is compressed, or that is not what the samples were read from.
    """
    for shard, part in groupby(pairs, lambda pair: pair.shard):
        places = _image_members(shard)
        for pair in part:
            if pair.image is not None and not places[pair.key]:
                raise CuveeError(f"training shard {shard} changed while it was read; run again")
            yield pair if pair.image is None else replace(pair, again=places[pair.key].popleft())


def image_again(image_hash: str, again: Again) -> bytes:
    """An image's bytes, read once more.

    Raises:
        CuveeError: they are not what they were before training, or cannot be read.
    """
    content = again()
    if xxhash.xxh3_128_hexdigest(content) != image_hash:
        raise CuveeError(
            f"{len(content)} bytes read from {again.shard} are not those of image {image_hash}, which stood there "
            "before training; the shard changed in the meantime: run again"
        )
    return content


def _image_members(shard: str) -> defaultdict[str, deque[TarMember]]:
    """Per sample key the image that `as_pair` takes; several where several runs of members have the key."""
    found: defaultdict[str, deque[TarMember]] = defaultdict(deque)
    for key, group in groupby(_members(shard), lambda member: member[0]):
        members = {suffix: place for _, suffix, place in group}
        suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in members), None)
        if suffix is not None:
            found[key].append(members[suffix])
    return found


def _members(shard: str) -> Iterator[tuple[str, str, TarMember]]:
    """(sample key, suffix, place) of the files of a tar, told apart as webdataset does."""
    from webdataset.tariterators import base_plus_ext

    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, suffix = base_plus_ext(member.name)
                if member.isreg() and key is not None:
                    yield key, suffix.lower(), TarMember(shard, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise CuveeError(
            f"training shard {shard} cannot be read image by image: {error}; `features: online` needs tars without "
            "compression: export it again, or set `features: cached`"
        ) from error
