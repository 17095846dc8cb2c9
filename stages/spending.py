"""What a stage that pays by the request may spend: one ledger for all workers of a run, also of one that is run again.

The ledger is a folder of leases. Before a worker sends requests it takes a lease: a file whose number nobody else has,
which says how many requests and how much money it may use at most; a lease that no budget covers is not given. When its
requests are answered the file is replaced by what they did use. A worker that dies leaves its lease open, and an open
lease counts in full. So the sum over the files never falls short of what was sent, with no process in charge and no
lock: a file appears with its content by a hard link, which fails where the number is taken.

The engine says where the folder is, with `ledger_in`; a stage that is opened without the engine gets one of its own.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import CuveeError

NANO = 1_000_000_000
"""Money is counted in integer billionths of its unit: sums are exact in any order."""
LARGEST_SHARE = 32
"""No lease takes more than this fraction's worth of what is left, so that the last workers still get some."""

_folder: ContextVar[Path | None] = ContextVar("ledger", default=None)


@contextmanager
def ledger_in(folder: Path) -> Iterator[None]:
    """What is opened inside the block keeps its ledger in `folder`."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def ledger_folder() -> Path | None:
    """Where the engine wants the ledger; None outside of it."""
    return _folder.get()


class Budget(BaseModel):
    """The most that one run may spend on a stage, over all workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int | None = Field(default=None, gt=0)
    """Requests, those tried again included."""
    cost: float | None = Field(default=None, gt=0)
    """In the unit of the prices."""


@dataclass(frozen=True)
class Spent:
    """What was used; while a lease is open, the most that it may use."""

    requests: int = 0
    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    open: bool = False

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.requests + other.requests,
            self.cost_nano + other.cost_nano,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.open or other.open,
        )


class SpentError(CuveeError):
    """Nothing is left of the budget."""


class Lease:
    """A part of the budget that one worker holds."""

    def __init__(self, file: Path, most: Spent) -> None:
        self.file = file
        self.left = self.pending = most.requests
        self.used = Spent()

    def draw(self) -> None:
        """One request of it is about to be sent."""
        self.left -= 1

    def settle(self, used: Spent) -> None:
        """One request of it is over; the last one closes the lease."""
        self.used += used
        self.pending -= 1
        if not self.pending:
            self._close()

    def give_back(self) -> None:
        """Close it without the requests that were never sent; those on their way are awaited."""
        self.pending -= self.left
        self.left = 0
        if not self.pending:
            self._close()

    def _close(self) -> None:
        temporary = self.file.with_name(f".writing-{uuid4().hex}")
        temporary.write_text(json.dumps(asdict(self.used)))
        os.replace(temporary, self.file)


class Ledger:
    """One worker's view of the leases."""

    def __init__(self, budget: Budget | None, folder: Path | None = None) -> None:
        """`folder` is shared by all workers of a run; None: one for this process alone."""
        self.budget = budget or Budget()
        self._own = tempfile.TemporaryDirectory(prefix="cuvee-ledger-") if folder is None else None
        self.folder = Path(self._own.name) if self._own else folder or Path()
        self._closed: dict[int, Spent] = {}

    def lease(self, requests: int, at_least: int, most_nano: int) -> Lease:
        """A lease over up to `requests` requests, fewer where the budget runs low.

        Args:
            requests: wanted.
            at_least: what may be given whatever share of the rest it is.
            most_nano: the most that one of them can cost.

        Raises:
            SpentError: not even one is covered.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            number, spent = self._sum()
            most = Spent(granted := self._granted(spent, requests, at_least, most_nano), granted * most_nano, open=True)
            if not granted:
                raise SpentError(self._refusal(spent, most_nano))
            file = self.folder / f"lease-{number:08d}.json"
            if _appears(file, json.dumps(asdict(most))):
                return Lease(file, most)

    def spent(self) -> Spent:
        """By all workers so far; open leases at their most."""
        return self._sum()[1]

    def _sum(self) -> tuple[int, Spent]:
        """The first free number, and what is spent or may be."""
        number, total = 0, Spent()
        while (found := self._closed.get(number) or _read(self.folder / f"lease-{number:08d}.json")) is not None:
            if not found.open:
                self._closed[number] = found
            number, total = number + 1, total + found
        return number, total

    def _granted(self, spent: Spent, requests: int, at_least: int, most_nano: int) -> int:
        left = requests
        if self.budget.requests is not None:
            left = min(left, _part(self.budget.requests - spent.requests, at_least))
        if self.budget.cost is not None and most_nano:
            affordable = (math.floor(self.budget.cost * NANO) - spent.cost_nano) // most_nano
            left = min(left, _part(affordable, at_least))
        return max(0, left)

    def _refusal(self, spent: Spent, most_nano: int) -> str:
        limits = [] if self.budget.requests is None else [f"{spent.requests} of {self.budget.requests} requests"]
        if self.budget.cost is not None:
            limits.append(
                f"{spent.cost_nano / NANO:.6g} of {self.budget.cost:g} in money, of which the next request may take "
                f"{most_nano / NANO:.6g}"
            )
        return (
            f"the budget is spent: {', '.join(limits)}, with what is under way at its most; raise `budget` and run "
            "again: it goes on where it stopped, and no answer is paid for twice"
        )


def spent_in(folder: Path) -> Spent:
    """Everything the leases of a folder say."""
    return Ledger(None, folder).spent()


def _part(left: int, at_least: int) -> int:
    return min(left, max(at_least, left // LARGEST_SHARE))


def _read(file: Path) -> Spent | None:
    try:
        return Spent(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None


def _appears(file: Path, content: str) -> bool:
    """Write a file under a name that must be free; False where it is not."""
    temporary = file.with_name(f".writing-{uuid4().hex}")
    temporary.write_text(content)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True
