"""The contract of a schedule: the trainer measures, the schedule answers with the next weights of the sources.

A schedule is its settings. What it knows between updates is its state, plain JSON, so that a run that was killed goes
on bit for bit; what it was told and what it answered is recorded, so that the whole path of the weights can be seen
and repeated. It looks at no sample, and the loader follows it without rewriting a shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ContractError

Doubles = npt.NDArray[np.float64]
State = dict[str, Any]
SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Course:
    """What stays the same during a run."""

    sources: tuple[str, ...]
    """Sorted."""
    targets: tuple[str, ...]
    """Sorted; none: the sources themselves are what the connector should do well on."""
    natural: Doubles
    """(S,) each source's share of all samples."""
    steps: int
    """Steps of the run."""
    seed: str

    @property
    def uniform(self) -> Doubles:
        """(S,) equal shares."""
        return np.full(len(self.sources), 1 / len(self.sources))

    def start(self, which: Literal["uniform", "natural"]) -> Doubles:
        """(S,) one of the two mixtures that need no evidence."""
        return self.uniform if which == "uniform" else self.natural


@dataclass(frozen=True)
class Wants:
    """What a schedule asks the trainer to measure before an update; rows are the targets, else the sources."""

    losses: bool = False
    """Loss of each row, always on the same samples, so that two updates can be compared."""
    excess: Literal["uniform", "natural"] | None = None
    """Loss of each source above that of a reference connector, which is trained before on this mixture."""
    gradients: Literal["identity", "diagonal"] | None = None
    """Inner products of gradients; `diagonal`: each coordinate over the root of Adam's second moment."""
    apart: bool = False
    """Where the rows are the sources, measure their gradients on samples of their own."""
    clip: float | None = None
    """Largest norm of a gradient; longer ones are shortened to it."""


@dataclass(frozen=True)
class Signals:
    """What was measured before one update; R rows are the targets, else the sources."""

    step: int
    """Steps done."""
    rate: float
    """Learning rate of the step to come."""
    losses: Doubles | None = None
    """(R,) nats per label token."""
    excess: Doubles | None = None
    """(S,) mean over label tokens of max(loss - reference's loss, 0), in nats."""
    products: Doubles | None = None
    """(S, R) inner products of each source's mean gradient with each row's."""
    norms: Doubles | None = None
    """(S,) norms of the sources' mean gradients."""

    def record(self) -> dict[str, Any]:
        """Plain JSON of what was measured."""
        arrays = {name: getattr(self, name) for name in ("losses", "excess", "products", "norms")}
        found = {name: array.tolist() for name, array in arrays.items() if array is not None}
        return {"step": self.step, "rate": self.rate, **found}


@dataclass
class Path:
    """A schedule on its way: its state, and what has been said so far."""

    state: State
    updates: list[dict[str, Any]] = field(default_factory=list)
    """Per update what was measured, and `weights`, the answer."""

    @property
    def weights(self) -> Doubles:
        """(S,) of the batches to come."""
        return np.array(self.state["weights"], np.float64)


class Rhythm(BaseModel):
    """How often weights change, and on how many samples each time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(10, ge=1)
    """Steps between updates."""
    probe: int = Field(32, ge=1)
    """Samples of each source, and of each target, behind one update."""
    aim: Literal["target", "sources"] = "target"
    """What the connector should be good at; `target` means the sources where there is no target."""
    tail: float = Field(1.0, gt=0, le=1)
    """Share of the run, its end, whose mean weights are recommended; 1 as published, less where runs are short."""


class Schedule(Rhythm):
    """One method that changes the weights of sources during training: its settings are its fields.

    The state holds at least `weights` (S,), `next`, the number of done steps at which the next update is due, and
    `total` and `count`, from which the mean over all answers follows.
    """

    kind: str
    version: ClassVar[int] = 1
    """Raise it whenever weights change for the same settings and signals."""

    def wants(self) -> Wants:
        """What has to be measured before an update."""
        raise ContractError(f"{type(self).__name__} does not implement wants()")

    def start(self, course: Course) -> State:
        """The state before the first step."""
        return self.state(course.uniform, first=0)

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """The state after an update."""
        raise ContractError(f"{type(self).__name__} does not implement answer()")

    def final(self, state: State) -> Doubles:
        """(S,) what the method recommends for a run of fixed weights: the mean over its answers in the `tail`."""
        return on_simplex(np.array(state["total"]) / max(1, state["count"])) if state["count"] else weights_of(state)

    def state(self, weights: Doubles, first: int, **facts: Any) -> State:
        """A first state with these weights and an update due before step `first`."""
        return {"weights": weights.tolist(), "next": first, "total": [0.0] * len(weights), "count": 0, **facts}

    def moved(self, state: State, weights: Doubles, step: int, course: Course, **facts: Any) -> State:
        """The state after an answer; the next update is due `every` steps later."""
        given = on_simplex(weights)
        counts = step >= (1 - self.tail) * course.steps
        return {
            **state,
            "weights": given.tolist(),
            "next": step + self.every,
            "total": (np.array(state["total"]) + counts * given).tolist(),
            "count": state["count"] + int(counts),
            **facts,
        }

    def update(self, path: Path, signals: Signals, course: Course) -> None:
        """Answer to signals, and write down both.

        Raises:
            ContractError: the answer is no point on the simplex, or no later update is named.
        """
        state = self.answer(path.state, signals, course)
        if state["next"] <= signals.step:
            raise ContractError(f"schedule {self.kind!r} wants its next update at step {state['next']} of the past")
        path.state = state
        path.updates.append({**signals.record(), "weights": on_simplex(weights_of(state)).tolist()})


@dataclass(frozen=True)
class Rehearsal:
    """A proxy connector that has been trained."""

    weights: Doubles
    """(S,) the given weights, or what the schedule recommends for a run of fixed ones."""
    losses: dict[str, float]
    """Per target, else per source: nats per label token on samples that no connector was trained or steered on."""
    updates: tuple[dict[str, Any], ...]
    """What was measured and answered, update by update."""

    @property
    def loss(self) -> float:
        """The mean over rows."""
        return float(np.mean(list(self.losses.values())))


class Proxy(Protocol):
    """Trains connectors on a sample of every source, for mixers that learn weights from training."""

    @property
    def identity(self) -> Any:
        """What its results depend on beside the surviving rows, as JSON."""
        ...

    def train(self, weights: "Doubles | Schedule", seed: int, steps: int | None) -> Rehearsal:
        """One connector.

        Args:
            weights: (S,) by source name, or a schedule.
            seed: number of the seed; connectors with equal numbers start from the same weights.
            steps: optimizer steps; None: the budget under `train`.
        """
        ...


def schedule_of(given: Any) -> Any:
    """A schedule from its kind and settings; anything but a mapping with a kind is left to the validation.

    Raises:
        ValueError: a kind that is not known.
    """
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        return given
    from stages.kinds import kinds  # it imports every method, this module included

    known = kinds(Schedule)
    if given["kind"] not in known:
        raise ValueError(f"found schedule {given['kind']!r}, expected one of {', '.join(known)}")
    return known[given["kind"]].model_validate(given)


def weights_of(state: State) -> Doubles:
    """(S,) the weights a state holds."""
    return np.array(state["weights"], np.float64)


def on_simplex(weights: Doubles) -> Doubles:
    """Weights whose sum is 1 but for rounding, divided by it.

    Raises:
        ContractError: a weight that is negative or not finite, or another sum.
    """
    total = float(weights.sum())
    if not (weights >= 0).all() or not abs(total - 1) <= SUM_TOLERANCE:
        raise ContractError(f"expected weights >= 0 that sum to 1, found {weights.tolist()}")
    return np.asarray(weights / total, np.float64)


def exponentiated(weights: Sequence[float] | Doubles, exponents: Doubles, uniform: float = 0.0) -> Doubles:
    """(1 - uniform) softmax(log w + exponents) + uniform / S; a weight of 0 stays 0 unless `uniform` lifts it."""
    given = np.asarray(weights, np.float64)
    logs = np.where(given > 0, np.log(np.maximum(given, np.finfo(np.float64).tiny)) + exponents, -np.inf)
    raised = np.exp(logs - logs.max())
    mixed: Doubles = (1 - uniform) * raised / raised.sum() + uniform / len(given)
    return mixed
