"""Which shards are old friends under a new name or time, and which only look like them: told by their bytes alone."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cluster import Cluster
from pipeline.plan import Memory, Shard
from pipeline.resolve import Resolved
from pipeline.shards import Container, shard_digest
from pipeline.tasks import Task, run_tasks
from schemas.errors import ShardError


def look(resolved: Resolved, cluster: Cluster | None = None, *, verify: bool = False) -> tuple[list[Shard], list[str]]:
    """Every input shard as it stands, and the paths of those that changed behind an equal size and time.

    Args:
        resolved: the recipe.
        cluster: whose workers read, where it is more than this machine; else threads of this process do.
        verify: digest the known shards as well instead of trusting size and time.
    """
    memory = Memory(resolved.workspace)
    shards = [memory.observed(item) for item in resolved.inputs]
    asked = {shard.token: shard.input.container for shard in shards if shard.familiar or (verify and shard.digest)}
    digests = dict(_digests(asked, cluster))
    changed = {
        shard.token: shard.input.container.path
        for shard in shards
        if verify and shard.digest and digests.get(shard.token, shard.digest) != shard.digest
    }
    shards = [replace(shard, digest=None, samples=0) if shard.token in changed else shard for shard in shards]
    shards = [
        memory.recognised(shard, digests[shard.token]) if shard.familiar and shard.token in digests else shard
        for shard in shards
    ]
    return shards, sorted(changed.values())


def _digests(asked: dict[str, Container], cluster: Cluster | None) -> Iterator[tuple[str, str]]:
    """(token, digest) of every shard that can be read; the scan accounts for the others."""
    job = Digesting(asked)
    if cluster is not None and cluster.address is not None:
        yield from ((token, digest) for token, digest in run_tasks(cluster, job, asked) if digest is not None)
        return
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for token, digest in zip(asked, threads.map(lambda token: next(job.digest(token)), asked), strict=True):
            if digest is not None:
                yield token, digest


@dataclass(frozen=True)
class Digesting:
    """Digests shards in a worker."""

    containers: dict[str, Container]

    def open(self) -> Task:
        """Nothing is heavy here."""
        return self.digest

    def digest(self, token: str) -> Iterator[Any]:
        """The digest of one shard; None where it cannot be read."""
        try:
            yield shard_digest(self.containers[token])
        except ShardError:
            yield None
