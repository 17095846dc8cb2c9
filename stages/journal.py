"""Answers that were paid for, until the slice they belong to is on disk: a run that stops does not pay for them twice.

Each worker appends to a file of its own beside the ledger (see `stages.spending`), and reads everybody's when it begins
a slice. When the engine has put a slice's scores on disk it calls `forget`, and the worker begins a new file. A line
that a dying worker left torn, or that holds no answer, is passed over.
"""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

_open: dict[Path, list["Journal"]] = {}


class Journal:
    """Answers, as JSON values, by the fingerprint of their request."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is shared by all workers; None: remember in this process only."""
        self.folder = folder
        self.known: dict[str, Any] = {}
        self._own: Path | None = None
        self._fresh = folder is None
        if folder is not None:
            _open.setdefault(folder, []).append(self)

    def refresh(self) -> None:
        """Read what there is, if this is the beginning of a slice."""
        if self._fresh or self.folder is None:
            return
        for file in sorted(self.folder.glob("answers-*.jsonl")):
            self._read(file)
        self._fresh = True

    def add(self, key: str, answer: Any) -> None:
        """Note an answer."""
        self.known[key] = answer
        if self.folder is None:
            return
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = self.folder / f"answers-{uuid4().hex}.jsonl"
        with open(self._own, "a") as lines:
            lines.write(json.dumps([key, answer]) + "\n")

    def forget(self) -> None:
        """Everything noted here is safe elsewhere."""
        if self._own is not None:
            self._own.unlink(missing_ok=True)
        self._own, self._fresh, self.known = None, False, {}

    def _read(self, file: Path) -> None:
        try:
            lines = file.read_bytes().split(b"\n")
        except FileNotFoundError:  # its worker has finished a slice
            return
        for line in lines[:-1]:  # the last one is empty, still being written, or torn
            try:
                noted = json.loads(line)
            except ValueError:
                continue
            if isinstance(noted, list) and len(noted) == 2:
                self.known[str(noted[0])] = noted[1]


def forget(folder: Path) -> None:
    """A slice of the stage whose ledger lies in `folder` is on disk."""
    for journal in _open.get(folder, ()):
        journal.forget()
