"""Answers that were paid for, until the slice they belong to is on disk: a run that stops does not pay for them twice.

Each worker appends to a file of its own; everybody reads all of them. A line that a dying worker left torn, or that
holds no answer, is passed over.
"""

import json
from pathlib import Path
from uuid import uuid4

from stages.raters.backend import Answer


class Journal:
    """Answers by the fingerprint of their request."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is shared by all workers; None: remember in this process only."""
        self.folder = folder
        self.known: dict[str, Answer] = {}
        self._read_to: dict[Path, int] = {}
        self._own = None if folder is None else folder / f"answers-{uuid4().hex}.jsonl"

    def refresh(self) -> None:
        """Read what others have written since the last time."""
        for file in sorted(self.folder.glob("answers-*.jsonl")) if self.folder else ():
            if file != self._own:
                self._read(file)

    def _read(self, file: Path) -> None:
        with open(file, "rb") as lines:
            lines.seek(self._read_to.get(file, 0))
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # still being written, or torn
                self._read_to[file] = self._read_to.get(file, 0) + len(line)
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            key, value, reason = json.loads(line)
        except ValueError:
            return
        self.known[str(key)] = Answer(value, reason)

    def add(self, key: str, answer: Answer) -> None:
        """Note an answer."""
        self.known[key] = answer
        if self._own is not None:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            with open(self._own, "a") as lines:
                lines.write(json.dumps([key, answer.value, answer.reason]) + "\n")
