"""The contract of a stage: columns in, columns out, row for row, never a row dropped."""

from collections.abc import Callable
from typing import ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.generation import Generation

Scorer = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Takes a batch with the stage's `reads`; returns its `writes` and its reason column, row for row."""


class Stage(BaseModel):
    """One scoring method: its settings are its fields, its work is what `open()` returns.

    The engine cuts batches of `batch_rows` rows inside a slice, calls `open()` once per worker and
    writes what comes back to `scores/<name>-<fingerprint>/`. What cannot be computed of a
    sample is null, with a short code in the reason column; an exception is a bug of the stage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    optional: bool = False
    """True: samples this stage cannot score stay in; their columns are null."""

    reads: ClassVar[tuple[pa.Field, ...]]
    writes: ClassVar[tuple[pa.Field, ...]]
    """A stage whose columns are named by its settings makes `reads`, `writes` and `name` properties."""
    shares: ClassVar[tuple[str, ...]] = ()
    """Settings that have to be those of the stage whose columns it reads, e.g. the model of an embedding: a recipe may
    leave them out, and cannot contradict them."""
    version: ClassVar[int] = 1
    """Raise it whenever outputs change for the same settings and input."""
    batch_rows: ClassVar[int] = 256
    uses_gpu: ClassVar[bool] = False
    """True: the engine places it in GPU actors where the cluster has GPUs. A property where a `device` decides."""
    concurrent: ClassVar[bool] = False
    """True: its scorer may be called by several threads at once, so that a GPU has the next slice before it."""

    @property
    def name(self) -> str:
        """What it goes by in a run: its kind, unless a recipe may hold several of one kind, told apart by a column."""
        return self.kind

    def open(self) -> Scorer:
        """Load what is heavy (models, libraries) and return the scorer; called once per worker."""
        raise ContractError(f"{type(self).__name__} does not implement open()")

    def identity(self) -> dict[str, object]:
        """What addresses the outputs beside kind and version: settings, with files replaced by their content."""
        return self.model_dump(mode="json", exclude={"kind", "optional"})

    def generation(self) -> Generation | None:
        """The language model that the engine is to run for it; see `stages.generation`."""
        return None

    def widths(self) -> dict[str, int]:
        """Lengths of list columns that it reads or writes, as far as the files behind its settings tell them."""
        return {}

    def check(self) -> None:
        """Refuse what cannot work before anything starts, e.g. a model that does not load.

        Raises:
            RecipeError: with what was found, what was expected and what to do.
        """

    def reason_column(self) -> pa.Field:
        """The column that says why a row has nulls: `<name>_reason`, null when all is well."""
        return pa.field(f"{self.name}_reason", pa.string())

    def returns(self) -> pa.Schema:
        """What the scorer returns: the written columns and the reason column."""
        return pa.schema([*self.writes, self.reason_column()])
