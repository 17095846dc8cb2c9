"""What a run did, window by window: what was drawn and lost by source, and, apart from it, how fast.

The first part is the same for the same run. The second, seconds and rates, is not, and is kept away from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.train.accumulation import Passed
from stages.train.batches import Counts

WINDOWS = 20
"""Most windows of a run."""


@dataclass
class Clock:
    """Seconds that training has waited for its data: tokens on disk, or bytes and pixels; never for a model."""

    waited: float = 0.0


@dataclass
class Journal:
    """The windows so far, and the one that is open; plain JSON but for the clock."""

    windows: list[dict[str, Any]] = field(default_factory=list)
    speeds: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Of the open window, per source: summed loss, label tokens, samples."""
    counts: list[int] = field(default_factory=lambda: [0] * len(Counts._fields))
    seconds: float = 0.0
    """Of the open window."""
    waited: float = 0.0

    def see(self, drawn: Sequence[tuple[str, int]], passed: Passed, seconds: float, waited: float) -> None:
        """Take a step in."""
        for (name, _), loss, labels in zip(drawn, passed.each, passed.labels, strict=True):
            line = self.losses.setdefault(name, [0.0, 0.0, 0])
            self.losses[name] = [line[0] + float(loss), line[1] + float(labels), line[2] + 1]
        self.counts = [a + b for a, b in zip(self.counts, passed.counts, strict=True)]
        self.seconds, self.waited = self.seconds + seconds, self.waited + waited

    def close(self, step: int, used: float, rate: float, machine: "dict[str, Any]") -> None:
        """End the window.

        Args:
            step: steps done.
            used: share of the budget that is used.
            rate: of the last step.
            machine: what else belongs to the speeds.
        """
        places = dict(zip(Counts._fields, self.counts, strict=True))
        by_source = {
            name: {"loss": loss / max(labels, 1), "samples": int(samples)}
            for name, (loss, labels, samples) in sorted(self.losses.items())
        }
        self.windows.append({"step": step, "budget_used": used, "rate": rate, "sources": by_source, **places})
        samples = sum(int(line[2]) for line in self.losses.values())
        seconds = max(self.seconds, 1e-9)
        rates = {f"{name}_per_s": count / seconds for name, count in {"samples": samples, **places}.items()}
        waited = {"seconds": self.seconds, "data_wait": self.waited / seconds}
        self.speeds.append({"step": step, **waited, **rates, **machine})
        self.losses, self.counts, self.seconds, self.waited = {}, [0] * len(Counts._fields), 0.0, 0.0

    @property
    def speed(self) -> dict[str, Any]:
        """Over all windows."""
        seconds = sum(window["seconds"] for window in self.speeds)
        mean = {
            name: sum(window[name] * window["seconds"] for window in self.speeds) / max(seconds, 1e-9)
            for name in (self.speeds[0] if self.speeds else {})
            if name.endswith("_per_s") or name in ("data_wait", "mfu")
        }
        peaks = [window["peak_bytes"] for window in self.speeds if "peak_bytes" in window]
        most = {"peak_bytes": max(peaks)} if peaks else {}
        return {"seconds": seconds, **mean, **most, "windows": self.speeds}
