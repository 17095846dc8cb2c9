"""One shard: what kind of container it is and how to read it."""

import os
from dataclasses import dataclass

from pipeline.shards.expand import is_url

TAR_ENDINGS = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.zst": "tar.zst", ".tzst": "tar.zst"}


@dataclass(frozen=True)
class Container:
    """One shard, as plain values, so that it travels as JSON."""

    path: str
    """Local path or fsspec URL; of a folder container, its table."""
    format: str
    """`tar`, `tar.gz`, `tar.zst`, `parquet`, `arrow` or `folder`."""
    image: str = "image"
    """Parquet, Arrow: column with the image or its relative path. Folder: table column with the path."""
    caption: str = "caption"
    """Parquet, Arrow and folder: column with the caption."""
    root: str = ""
    """The folder that image paths are relative to, and that nothing outside of is read; empty: images are inside."""

    def settings(self) -> dict[str, str]:
        """What beside the bytes decides the index; nothing for tars, whose compression shows in their bytes."""
        if self.format.startswith("tar"):
            return {}
        facts = {"format": self.format, "image": self.image, "caption": self.caption}
        return facts | ({"table": os.path.splitext(self.path)[1].lower()} if self.format == "folder" else {})

    @property
    def relative_root(self) -> str:
        """The root as seen from the container, so that both may move together."""
        if not self.root or is_url(self.root) != is_url(self.path):
            return self.root
        return os.path.relpath(self.root, os.path.dirname(self.path) or ".")
