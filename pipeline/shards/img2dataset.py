"""What img2dataset wrote beside its tars: which URLs it could not fetch, and so are samples of no shard."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc

from pipeline.shards.batch_records import ARROW_FAILS, is_text
from pipeline.shards.container import TAR_ENDINGS, Container
from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.parquet_records import open_parquet
from schemas.errors import ShardError

SUCCESS = "success"
COLUMNS = {"key", "status"}
THREADS = 8


def statuses(containers: Iterable[Container]) -> Counter[str]:
    """How often each status stands in the tables beside these tars; empty where img2dataset wrote none.

    NNNNN.parquet beside NNNNN.tar counts when it has a `key` and a `status`; one that cannot be read is left out, as
    it holds no sample.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(_counted, _tables(containers)), Counter())


def note(source: str, found: Counter[str]) -> str | None:
    """A line for the run's notes; None when every URL was fetched."""
    failed = sorted((status, count) for status, count in found.items() if status != SUCCESS)
    if not failed:
        return None
    reasons = ", ".join(f"{count} {status}" for status, count in failed)
    return (
        f"img2dataset: {sum(count for _, count in failed)} of {found.total()} URLs of source {source!r} were not "
        f"downloaded ({reasons}); the .parquet beside each tar lists them"
    )


def _tables(containers: Iterable[Container]) -> Iterator[str]:
    folders: dict[str, set[str]] = {}
    for table in filter(None, map(_table_of, containers)):
        folder, _, name = table.rpartition("/")
        if folder not in folders:
            folders[folder] = _listing(folder)
        if name in folders[folder]:
            yield table


def _table_of(container: Container) -> str | None:
    ending = next((ending for ending in TAR_ENDINGS if container.path.lower().endswith(ending)), None)
    return None if ending is None else f"{container.path[: -len(ending)]}.parquet"


def _listing(folder: str) -> set[str]:
    """Names of the Parquet files in a folder; a listing is one request, where asking for each file is many."""
    import glob

    try:
        if is_url(folder):
            filesystem, inside = filesystem_of(folder)
            paths = filesystem.glob(f"{inside}/*.parquet")
        else:
            paths = glob.glob(f"{glob.escape(folder)}/*.parquet")
    except OSError:
        return set()
    return {path.rpartition("/")[2] for path in paths}


def _counted(table: str) -> Counter[str]:
    try:
        with open_parquet(table) as file:
            schema = file.schema_arrow
            if not set(schema.names) >= COLUMNS or not is_text(schema.field("status").type):
                return Counter()
            counts = pc.value_counts(file.read(["status"], use_threads=False)["status"]).to_pylist()
    except (ShardError, *ARROW_FAILS):
        return Counter()
    return Counter({str(one["values"]): one["counts"] for one in counts})
