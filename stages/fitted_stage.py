"""The contract of a stage that learns: from many rows first, then columns in, columns out like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from schemas.errors import ContractError
from stages.fit import Fit
from stages.stage import Scorer, Stage

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Examples:
    """What a stage may learn from."""

    rows: "Mapping[str, pl.DataFrame]"
    """Role -> `uid`, `source` and `FittedStage.studies()`, in uid order. No row that ingest quarantined, none with a
    null in these columns, no held-out one and none that matches one; at least one row per role."""
    seed: int
    writers: Mapping[str, Stage]
    """Column -> the stage of the recipe that writes it, of the columns that the stage reads."""


class FittedStage(Stage):
    """A stage whose scorer needs what `learn` makes of rows of the whole pool or the target.

    Its inputs are columns of other stages and of the index, never the image, so it costs no look at a shard. The
    engine stores the fit under its inputs, and the scores under the fit's content: equal fits, equal scores.
    """

    learns_from: ClassVar[tuple[str, ...]]
    """Roles whose rows `learn` gets; of the pool, target and eval rows are all scored with the one fit."""
    learn_rows: ClassVar[int] = 65_536
    """Rows of a role at most: those with the smallest hash(seed, uid)."""
    learn_reads: ClassVar[tuple[pa.Field, ...] | None] = None
    """Columns that `learn` gets where they are not `reads`."""
    per_source: ClassVar[bool] = False
    """True: a row's score depends on its source, so that one shard in two sources has two sidecars."""

    @classmethod
    def studies(cls) -> tuple[pa.Field, ...]:
        """The columns that `learn` gets."""
        return cls.reads if cls.learn_reads is None else cls.learn_reads

    def learn(self, examples: Examples) -> Fit:
        """What has to be known of many rows to score any one of them; called in one process.

        Raises:
            CuveeError: nothing can be learned from these rows, with what would be needed.
        """
        raise ContractError(f"{type(self).__name__} does not implement learn()")

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer; called once per worker, of a `per_source` stage once per source, else with an empty one.

        Raises:
            CuveeError: the fit, pinned from another run, does not know the source.
        """
        raise ContractError(f"{type(self).__name__} does not implement open_with()")

    def open(self) -> Scorer:
        """Not without a fit.

        Raises:
            ContractError: always.
        """
        raise ContractError(f"{type(self).__name__} learns first: call open_with(fit, source)")
