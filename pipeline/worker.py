"""What happens to one slice inside a worker: read, score, check, write. Plain code, run by Ray or without it."""

import shutil
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.fingerprints import SLICE_BYTES, SLICE_ROWS, content_address, source_address
from pipeline.fits import FIT, read_fit
from pipeline.lock import refuse_if_over
from pipeline.plan import Work
from pipeline.shards import ShardScan, read_images
from pipeline.sidecars import Workspace, gpu_facts, is_whole, join_parts, machine_facts, read_table, write_table
from schemas.columns import IMAGE, PROVIDED, bounds
from schemas.errors import ContractError, CuveeError, ShardError
from schemas.tables import INDEX
from stages.fitted_stage import FittedStage
from stages.journal import forget
from stages.kinds import kinds
from stages.spending import ledger_in
from stages.stage import Scorer, Stage


@dataclass(frozen=True)
class Toolbox:
    """What a worker needs to open its stages: plain values, so that it travels as it is."""

    workspace: str
    stages: tuple[tuple[str, dict[str, Any]], ...]
    """(kind, settings) in recipe order."""
    addresses: dict[str, str]
    by_source: frozenset[str]
    """Kinds whose sidecars are those of one source."""
    fits: dict[str, str]
    """Kind -> folder of its fit in the workspace."""
    plugins: tuple[str, ...]
    held_by: str | None = None
    """The run that has to hold the workspace while its workers write."""

    def address(self, kind: str, item: Work) -> str:
        """Folder name of a stage's sidecars for an item."""
        return source_address(self.addresses[kind], item.source) if kind in self.by_source else self.addresses[kind]

    def open(self) -> list[Stage]:
        """The stages, built where they will run."""
        known = kinds(Stage, [Path(plugin) for plugin in self.plugins])
        return [known[kind].model_validate(settings) for kind, settings in self.stages]


class Occupied:
    """Seconds in which someone is inside; where several are, they are told once."""

    def __init__(self) -> None:
        self.inside, self.since, self.turn = 0, 0.0, threading.Lock()

    @contextmanager
    def __call__(self, told: dict[str, float], name: str) -> Iterator[None]:
        """Note in `told` what nobody has told yet."""
        with self.turn:
            if not self.inside:
                self.since = time.perf_counter()
            self.inside += 1
        try:
            yield
        finally:
            with self.turn:
                self.inside -= 1
                now = time.perf_counter()
                told[name], self.since = now - self.since, now


class SliceWorker:
    """Scores work items; models are loaded once, when the first slice needs them.

    Several threads may score a slice each: stages that are not `concurrent` take turns, since some share a model.
    """

    def __init__(self, toolbox: Toolbox, only: Sequence[str] | None = None) -> None:
        """`only` names the stages it runs, for a cluster where GPU stages run elsewhere."""
        self.toolbox = toolbox
        self.workspace = Workspace(Path(toolbox.workspace))
        self.known = toolbox.open()
        # What asks a model that the engine runs is scored apart, when there are replies.
        names = [stage.name for stage in self.known if stage.generation() is None] if only is None else only
        self.stages = [stage for stage in self.known if stage.name in names]
        self._of_images = {stage.name for stage in self.known if IMAGE in stage.reads}
        """Those that need image bytes, here or in another worker."""
        self.scorers: dict[tuple[str, str], Scorer] = {}
        self.occupied = {stage.name: Occupied() for stage in self.stages}
        self.turn, self.opening = threading.Lock(), threading.Lock()

    def work(self, item: Work, *, hand_on: bool = False) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Do one item; yields a report per slice and, after a scan, one for the shard.

        With `hand_on`, other stages wait for the slices: their columns come along as Arrow IPC, compressed image bytes
        included, and the sidecars are left to be assembled.
        """
        if item.digest is None and (seen := self.workspace.marked(item.token)) is not None:
            yield seen, None  # a worker that died had put it together already
            return
        try:
            for report, columns in self._scan(item) if item.digest is None else self._rows(item):
                if "digest" in report and not hand_on:
                    self.assemble(item, report)
                yield report, _packed(columns) if hand_on and columns else None
        except ShardError as error:
            yield {"token": item.token, "bad": error.reason, "message": str(error)}, None

    def resume(self, item: Work, payload: bytes, number: int) -> dict[str, Any]:
        """Run this worker's stages on a slice that another one has read."""
        table = pa.ipc.open_stream(payload).read_all()
        report, _ = self.score(item, {name: _combined(table[name]) for name in table.column_names}, number)
        return report

    def _scan(self, item: Work) -> Iterator[tuple[dict[str, Any], dict[str, pa.Array] | None]]:
        scan = ShardScan(item.container, SLICE_BYTES, SLICE_ROWS, images=self._reads_images(item))
        number = 0
        for number, piece in enumerate(scan, start=1):
            write_table(piece.index, self._part(item.index_address, item.token, number - 1), durable=False)
            report, columns = self.score(item, _inputs(piece.index, piece.images), number - 1)
            yield report | {"bytes": piece.image_bytes}, columns
        digest = content_address(scan.digest, item.container.settings())
        yield {"token": item.token, "digest": digest, "slices": number, "samples": scan.samples}, None

    def _reads_images(self, item: Work) -> bool:
        return not self._of_images.isdisjoint(item.stages)

    def _rows(self, item: Work) -> Iterator[tuple[dict[str, Any], dict[str, pa.Array]]]:
        yield self.score(item, self.read(item), item.slice_number)

    def read(self, item: Work) -> dict[str, pa.Array]:
        """What ingest provides of a slice of a known shard; images only where one of its stages reads them."""
        index = read_table(self.workspace.sidecar(item.index_address, str(item.digest)))
        rows = index.slice(item.first_row, item.rows)
        images = pa.nulls(len(rows), IMAGE.type)
        if self._reads_images(item):
            images = read_images(item.container, rows)
            _assert_unchanged(item, rows, images)
        return _inputs(rows, images)

    def score(
        self, item: Work, columns: dict[str, pa.Array], number: int
    ) -> tuple[dict[str, Any], dict[str, pa.Array]]:
        """Run the missing stages on one slice and stage their parts; what is staged already is not computed again."""
        rows = len(columns[IMAGE.name])
        seconds: dict[str, float] = {}
        wanted = {field.name for stage in self.known if stage.name in item.stages for field in stage.reads}
        for stage in self.stages:
            part = self._part(self.toolbox.address(stage.name, item), item.token, number)
            if stage.name not in item.stages:
                columns |= self._present(stage, item, rows, wanted)
            elif is_whole(part, rows):
                columns |= _columns(read_table(part), stage)
            else:
                facts = machine_facts() | (gpu_facts() if stage.uses_gpu else {})
                with nullcontext() if stage.concurrent else self.turn, self.occupied[stage.name](seconds, stage.name):
                    scores = self._scored(stage, columns, item, rows)
                    write_table(scores, part, facts, durable=False)
                    forget(self.workspace.spending(self.toolbox.addresses[stage.name]))
                columns |= _columns(scores, stage)
        size = int(pc.sum(pc.binary_length(columns[IMAGE.name])).as_py() or 0)
        return {"token": item.token, "slice": number, "rows": rows, "seconds": seconds, "bytes": size}, columns

    def _scored(self, stage: Stage, columns: dict[str, pa.Array], item: Work, rows: int) -> pa.Table:
        scorer = self._scorer(stage, item.source)
        inputs = pa.table([columns[field.name] for field in stage.reads], pa.schema(stage.reads))
        batches = [
            check_batch(stage, scorer(batch), batch.num_rows, item.container.path)
            for start in range(0, rows, stage.batch_rows)
            for batch in inputs.slice(start, stage.batch_rows).combine_chunks().to_batches()
        ]
        return pa.Table.from_batches(batches, stage.returns())

    def _scorer(self, stage: Stage, source: str) -> Scorer:
        key = (stage.name, source if isinstance(stage, FittedStage) and stage.per_source else "")
        with self.opening:
            if key not in self.scorers:
                self.scorers[key] = self._opened(stage, key[1])
            return self.scorers[key]

    def _opened(self, stage: Stage, source: str) -> Scorer:
        if not isinstance(stage, FittedStage):
            with ledger_in(self.workspace.spending(self.toolbox.addresses[stage.name])):
                return stage.open()
        return stage.open_with(read_fit(self.workspace.root / self.toolbox.fits[stage.name] / FIT), source)

    def _present(self, stage: Stage, item: Work, rows: int, wanted: set[str]) -> dict[str, pa.Array]:
        """Those columns of a finished stage that a missing one reads."""
        assert item.digest is not None
        names = [field.name for field in stage.writes if field.name in wanted]
        if not names:
            return {}
        table = read_table(self.workspace.sidecar(self.toolbox.address(stage.name, item), item.digest), names)
        return {name: _combined(table[name].slice(item.first_row, rows)) for name in names}

    def assemble(self, item: Work, report: dict[str, Any]) -> None:
        """Put together the sidecars of a shard that was scanned and scored by this worker alone."""
        self._refuse_if_over()
        place = (item.token, report["digest"], report["slices"])
        assemble_shard(self.workspace, self.toolbox, self.stages, item, place)
        report["assembled"] = True
        self.workspace.mark(item.token, report)

    def _refuse_if_over(self) -> None:
        if self.toolbox.held_by is not None:
            refuse_if_over(self.workspace.root, self.toolbox.held_by)

    def _part(self, address: str, token: str, number: int) -> Path:
        self._refuse_if_over()
        return self.workspace.staged(address, token) / f"{number:06d}.parquet"


def _inputs(index: pa.Table, images: pa.Array) -> dict[str, pa.Array]:
    provided = {field.name: _combined(index[field.name]) for field in PROVIDED if field is not IMAGE}
    return {IMAGE.name: _combined(images), **provided}


def _packed(columns: dict[str, pa.Array]) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _columns(table: pa.Table, stage: Stage) -> dict[str, pa.Array]:
    return {field.name: _combined(table[field.name]) for field in stage.writes}


def _assert_unchanged(item: Work, rows: pa.Table, images: pa.Array) -> None:
    """A shard that changed behind an equal size and stamp is caught at its image hashes."""
    for row, (image, expected) in enumerate(zip(images, rows["image_hash"], strict=True)):
        if expected.is_valid and image.is_valid and xxhash.xxh3_128_hexdigest(image.as_buffer()) != expected.as_py():
            raise ShardError(
                f"{item.container.path}: the image of {rows['key'][row].as_py()!r} is not the one that was indexed; "
                "the file changed behind the same size and time: touch it, then run again",
                "shard_changed",
            )


def described(error: Exception, item: Work) -> str:
    """What the user reads when a worker fails: the fault, the shard, what to do; with a trace for a bug."""
    text = f"{item.container.path}: {error}"
    if isinstance(error, CuveeError) and not isinstance(error, ContractError):
        return text
    trace = "".join(traceback.format_exception(error)[-4:])
    return f"{text}\n{trace}a stage must turn bad samples into a null and a reason; finished slices are kept"


def check_batch(stage: Stage, scores: pa.RecordBatch, rows: int, shard: str) -> pa.RecordBatch:
    """Hold a stage to its contract at its edge: schema, row count, no NaN or infinity, declared range.

    Raises:
        ContractError: naming the stage, the shard, the column, what was found and what was promised.
    """
    who = f"stage {stage.name!r} on {shard}"
    if scores.num_rows != rows:
        raise ContractError(f"{who}: got {rows} rows and returned {scores.num_rows}; a stage never drops a row")
    if not scores.schema.equals(stage.returns()):
        raise ContractError(f"{who}: returned {scores.schema}; declared {stage.returns()}")
    for field in stage.writes:
        values = scores[field.name]
        if pa.types.is_list(field.type):
            values = values.flatten()
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            _check_numbers(values, field, who)
    return scores


def _check_numbers(values: pa.Array, field: pa.Field, who: str) -> None:
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    if not len(numbers):
        return
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ContractError(f"{who}: column {field.name!r} holds NaN or infinity; use null and a reason")
    low, high = bounds(field)
    if (low is not None and numbers.min() < low) or (high is not None and numbers.max() > high):
        found = f"[{numbers.min()}, {numbers.max()}]"
        raise ContractError(f"{who}: column {field.name!r} holds {found}; declared range [{low}, {high}]")


def assemble(workspace: Workspace, address: str, schema: pa.Schema, shard: tuple[str, str, int]) -> None:
    """Join a shard's staged slices into its sidecar, one row group a slice, and remove them.

    Args:
        workspace: where it lies.
        address: the stage's folder.
        schema: what a shard without samples gets.
        shard: token, digest and number of slices.

    Raises:
        ContractError: a slice is missing; the sidecar is then not written.
    """
    token, digest, slices = shard
    folder = workspace.staged(address, token)
    parts = [folder / f"{number:06d}.parquet" for number in range(slices)]
    if lost := [part.name for part in parts if not part.exists()]:
        raise ContractError(f"{folder} lacks {lost}; run again to compute what is missing")
    join_parts(parts, schema, workspace.sidecar(address, digest))
    shutil.rmtree(folder, ignore_errors=True)


def assemble_shard(
    workspace: Workspace, box: Toolbox, stages: Sequence[Stage], item: Work, place: tuple[str, str, int]
) -> None:
    """Assemble every sidecar that an item was to make; the index last, since it stands for the shard.

    Args:
        workspace: where they lie.
        box: knows the stages' folders.
        stages: those of the recipe.
        item: what was missing.
        place: token, digest and number of slices.
    """
    for stage in stages:
        if stage.name in item.stages:
            assemble(workspace, box.address(stage.name, item), stage.returns(), place)
    if item.digest is None:
        assemble(workspace, item.index_address, INDEX, place)
