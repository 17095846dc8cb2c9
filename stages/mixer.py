"""The contract of a mixer: evidence about sources in, a point on the simplex out, never a sample looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.fit import Fit
from stages.mixture.trials_table import TrialsTable
from stages.schedule import Proxy

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SourceEvidence:
    """The surviving rows of one source, in uid order."""

    columns: dict[str, Floats]
    """Per column named by the mixer, the rows' values: (n, d) for embeddings, (n,) for scores and names."""
    weights: npt.NDArray[np.float64]
    """(n,) rule weights, > 0."""
    uids: list[str]


@dataclass(frozen=True)
class MixtureEvidence:
    """What a mixer may know."""

    sources: dict[str, SourceEvidence]
    """Sources with at least one surviving row, sorted by name."""
    target: dict[str, Floats]
    """Per column, the target's values; empty when the mixer needs none."""
    samples: int
    """Rows the export will draw, repeats included."""
    natural: dict[str, float]
    """Each source's share of the decodable pool, summing to 1."""
    seed: int
    fit: Fit | None = None
    """What this mixer, with these settings, learned in the run that the recipe pins: its weights are taken."""
    trials: TrialsTable | None = None
    """The pilot runs of the table that the mixer's settings name; nothing for a mixer that reads none."""
    proxy: Proxy | None = None
    """Trains proxy connectors on the surviving rows; nothing for a mixer that needs none."""


@dataclass(frozen=True)
class Mixture:
    """A point on the simplex with its evidence."""

    weights: dict[str, float]
    """Ideal share per source, summing to 1, before caps."""
    capped: dict[str, float]
    """Share per source after repetition caps, summing to 1; equals `weights` where none binds."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap interval of each ideal share."""
    objective: float
    """The mixer's objective at `capped`; lower is better."""
    references: dict[str, float]
    """The objective at named mixtures: `uniform`, `natural`, `ideal`."""
    binding: tuple[str, ...] = ()
    """Constraints that bind at `capped`, e.g. `max_repeats: photos`."""
    evidence: dict[str, Any] = field(default_factory=dict)
    fit: Fit | None = None
    """What was learned, or the pinned fit as it came; nothing for a mixer that does not learn."""
    notes: tuple[str, ...] = ()
    """Sentences for the record and the report."""


class Mixer(BaseModel):
    """One mixture method: its settings are its fields, its step is `mix`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: ClassVar[int] = 1
    """Raise it whenever mixtures or fits change for the same settings and evidence."""

    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads."""
        raise ContractError(f"{type(self).__name__} does not implement columns()")

    def needs_target(self) -> bool:
        """True when the recipe must name a target."""
        return False

    def needs_proxy(self) -> bool:
        """True when the recipe must say, under `train`, between which models a proxy connector is trained."""
        return False

    def repeats_allowed(self) -> int:
        """How often one sample may be drawn at most."""
        return 1

    def trials_file(self) -> Path | None:
        """The table of pilot runs that it reads, for a mixer that reads one."""
        return None

    def identity(self) -> dict[str, Any]:
        """What addresses its mixtures beside version and rows: kind and settings, with files by their content."""
        return self.model_dump(mode="json")

    def check(self, sources: Sequence[str]) -> None:
        """Refuse what cannot work before anything starts; `sources` are those of the pool, sorted.

        Raises:
            RecipeError: with what was found, what was expected and what to do.
        """

    def mix(self, evidence: MixtureEvidence) -> Mixture:
        """Weigh the sources.

        Raises:
            CuveeError: the caps leave fewer draws than `samples`, with both numbers; or a source has no pinned weight.
        """
        raise ContractError(f"{type(self).__name__} does not implement mix()")
