"""Images that lie beside the table that lists them: read below one folder only, digested together with the table."""

import errno
import os
import stat

from blake3 import blake3

from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.rows import is_unsafe
from pipeline.shards.tar_entries import MOST_HELD_BYTES
from schemas.errors import ShardError

LASTING = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What reading again would not change; any other error of disk or network stops the shard instead of one image."""


class ImagesDigest:
    """The digest of a table and the images it lists, told one line at a time."""

    def __init__(self) -> None:
        self._lines = blake3()

    def add(self, path: str | None, image: bytes | memoryview | None, reason: str | None) -> None:
        """Take the next line in; lengths stand before contents, so that no two folders spell the same bytes."""
        name = (path or "").encode(errors="surrogatepass")
        self._lines.update(f"{len(name)} {-1 if image is None else len(image)} {reason}\0".encode())
        self._lines.update(name + (image or b""))

    def with_table(self, digest: str) -> str:
        """BLAKE3 in hex over the table's own digest and all lines."""
        return blake3(f"{digest}\0{self._lines.hexdigest()}".encode()).hexdigest()


def read_image(root: str, path: str) -> tuple[bytes | None, str | None]:
    """An image below the folder `root` as (bytes, reason).

    Reasons: `unsafe_name` (leads out of the folder, also through a link), `missing_image`, `not_a_regular_file`,
    `member_too_large`, `unreadable_image`.

    Raises:
        ShardError: `read_failed`, for errors that may be over when it is tried again.
    """
    if is_unsafe(path):
        return None, "unsafe_name"
    try:
        path.encode()
        return _remote_image(root, path) if is_url(root) else _local_image(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None, "missing_image"
    except ValueError:  # a name that no index or filesystem can hold
        return None, "unreadable_image"
    except OSError as error:
        if error.errno in LASTING:
            return None, "unreadable_image"
        raise ShardError(f"{root}: reading {path!r} failed: {error}", "read_failed") from error


def _remote_image(root: str, path: str) -> tuple[bytes | None, str | None]:
    filesystem, inside = filesystem_of(root)
    place = f"{inside.rstrip('/')}/{path}"
    if (filesystem.size(place) or 0) > MOST_HELD_BYTES:
        return None, "member_too_large"
    return bytes(filesystem.cat_file(place)), None


def _local_image(root: str, path: str) -> tuple[bytes | None, str | None]:
    folder = os.path.realpath(root)
    place = os.path.realpath(os.path.join(folder, path))
    if os.path.commonpath([folder, place]) != folder:
        return None, "unsafe_name"
    facts = os.stat(place)
    if not stat.S_ISREG(facts.st_mode):
        return None, "not_a_regular_file"
    if facts.st_size > MOST_HELD_BYTES:
        return None, "member_too_large"
    with open(place, "rb") as stream:
        return stream.read(), None


def below(root: str, path: str) -> str:
    """A URL or absolute path that begins with the root, as it stands below it; anything else as it is."""
    return path.removeprefix(f"{root.rstrip('/')}/") if root else path


def inside(root: str, path: str) -> str | None:
    """A path as it stands below a local folder; None where it leads elsewhere.

    Datasets name a file by the path it had when they were made, often absolute and on another machine.
    """
    if os.path.isabs(path):
        path = os.path.relpath(path, os.path.abspath(root))
    return None if is_unsafe(path) else path
