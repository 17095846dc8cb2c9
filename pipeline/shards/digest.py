"""A shard's identity from its content alone: tells a moved shard from a new one, a changed one from a known."""

from collections import deque

from pipeline.fingerprints import content_address
from pipeline.shards.container import Container
from pipeline.shards.scan import rows_of
from pipeline.shards.streams import digest_file


def shard_digest(container: Container) -> str:
    """What the first scan found, or would find: all bytes are read, nothing is indexed.

    Raises:
        ShardError: it cannot be read.
    """
    if not container.root:
        return content_address(digest_file(container.path)[0], container.settings())
    rows = rows_of(container)
    deque(rows, maxlen=0)
    return content_address(rows.digest, container.settings())
