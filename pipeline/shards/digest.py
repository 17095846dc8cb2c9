"""A shard's identity from its content alone: tells a moved shard from a new one, a changed one from a known."""

from pipeline.fingerprints import content_address
from pipeline.shards.container import Container
from pipeline.shards.folder_rows import FolderRows
from pipeline.shards.streams import digest_file


def shard_digest(container: Container) -> str:
    """What the first scan found, or would find: all bytes are read, nothing is indexed.

    Raises:
        ShardError: it cannot be read.
    """
    if container.format != "folder":
        return content_address(digest_file(container.path)[0], container.settings())
    rows = FolderRows(container)
    for _ in rows:
        pass
    return content_address(rows.digest, container.settings())
