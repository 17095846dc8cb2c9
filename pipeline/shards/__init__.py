"""Containers of samples <-> Arrow: one sequential pass to digest and index, ranges to read again."""

from pipeline.shards.container import Container
from pipeline.shards.digest import shard_digest
from pipeline.shards.expand import expand
from pipeline.shards.reread import read_images, read_members
from pipeline.shards.scan import ShardScan, Slice
from pipeline.shards.sources import containers
from pipeline.shards.stamps import Listings, stamp

__all__ = [
    "Container",
    "Listings",
    "ShardScan",
    "Slice",
    "containers",
    "expand",
    "read_images",
    "read_members",
    "shard_digest",
    "stamp",
]
