"""What a trial is, and the contract of what is trained in one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.cluster import Cluster
from pipeline.score import Progress
from pipeline.trials.split import Split

VERSION = 1
"""Raise it when the same trial gives other numbers."""


@dataclass(frozen=True)
class Trial:
    """One run of one mixture, as plain values."""

    name: str
    shares: dict[str, float]
    """Per source, by name."""
    budget: int
    """Samples drawn."""
    seed: int
    """Number of the seed, from 0; runs with equal numbers begin alike, whatever their mixture."""
    address: str
    """Fingerprint of everything it depends on."""


@dataclass(frozen=True)
class Measured:
    """What a trial found."""

    drawn: Mapping[str, int]
    """Samples drawn per source."""
    metrics: Mapping[str, Mapping[str, float]]
    """Per held-out source, per metric; lower is better."""


class Bench(Protocol):
    """What workers need to run trials, as plain values that travel."""

    def open(self) -> Callable[[Trial], Measured]:
        """Load models and samples, once per worker."""
        ...


class Pilot(Protocol):
    """A kind of pilot model with its settings."""

    @property
    def kind(self) -> str:
        """What the recipe calls it."""
        ...

    def drawn(self, budget: int) -> int:
        """Samples that a budget draws: whole batches."""
        ...

    def identity(self, split: Split) -> Any:
        """JSON values: what beside samples, mixture, budget and seed decides a trial."""
        ...

    def prepare(self, split: Split, folder: Path, cluster: Cluster, progress: Progress) -> tuple[Bench, int]:
        """Compute once what all trials share, below `folder`; the bench, and the GPUs that a trial takes."""
        ...
