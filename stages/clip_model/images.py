"""Images on their way to the model: decoded ahead by threads, copied while the model computes, in passes of one shape.

Every pass has the same number of rows, full of sound images but for a call's last, which is filled up with zeros: at a
fixed shape a row's bits depend neither on its
neighbours nor on its place, so an image's embedding is its own wherever it stands.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

DECODERS = 32
"""Most threads that decode ahead of a GPU; a CPU has nothing to wait for."""
IN_FLIGHT = 2
"""Passes that a GPU has before it: one that it computes and one that is copied."""

Item = TypeVar("Item")


def prepared(
    items: Sequence[Item], pixels: Callable[[Item], "torch.Tensor | str"], rows: int, *, ahead: bool
) -> Iterator["torch.Tensor | str"]:
    """Per item, in order, its pixels or a reason; with `ahead`, threads decode up to twice `rows` items ahead."""
    if not ahead:
        yield from map(pixels, items)
        return
    waiting: deque[Iterator[torch.Tensor | str]] = deque()
    for start in range(0, len(items), rows):
        waiting.append(decoders().map(pixels, items[start : start + rows]))
        if len(waiting) > 1:
            yield from waiting.popleft()
    if waiting:
        yield from waiting.popleft()


@cache
def decoders() -> ThreadPoolExecutor:
    """The threads of this process that decode ahead of its GPU, for all that is in flight there."""
    import torch

    threads = min(DECODERS, os.cpu_count() or 1)
    return ThreadPoolExecutor(threads, "decoder", initializer=torch.set_num_threads, initargs=(1,))


def passes(
    pixels: Iterator["torch.Tensor | str"], rows: int, reasons: list[str | None]
) -> Iterator[list["torch.Tensor"]]:
    """The sound of what `prepared` gives, `rows` for every forward pass and what is left for the last.

    So items without pixels cost no pass, however many they are. Each item leaves its reason or None in `reasons`.
    """
    sound: list[torch.Tensor] = []
    for pixel in pixels:
        reasons.append(pixel if isinstance(pixel, str) else None)
        if not isinstance(pixel, str):
            sound.append(pixel)
        if len(sound) == rows:
            yield sound
            sound = []
    if sound:
        yield sound


class Uploads:
    """Makes batches of one shape on a device.

    On a GPU: through two pinned buffers in turn, by a stream of its own, so that copies run beside the computation. The
    host is never more than `IN_FLIGHT` passes ahead, which bounds memory there.
    """

    def __init__(self, device: str, rows: int) -> None:
        self.device, self.rows = device, rows
        self.turn = 0
        self.buffers: list[Any] = []
        self.copied: list[Any] = []
        self.computed: deque[Any] = deque()

    def __call__(self, pixels: "list[torch.Tensor]") -> "torch.Tensor":
        """(rows, 3, height, width) channels-last on the device, of at most `rows` images of one shape and type."""
        import torch

        if self.device == "cpu":
            batch = torch.zeros(self.rows, *pixels[0].shape, dtype=pixels[0].dtype)
            torch.stack(pixels, out=batch[: len(pixels)])
        else:
            batch = self._copied(pixels)
        return batch.contiguous(memory_format=torch.channels_last)

    def _copied(self, pixels: "list[torch.Tensor]") -> "torch.Tensor":
        import torch

        if not self.buffers:
            shape = (self.rows, *pixels[0].shape)
            self.buffers = [torch.zeros(shape, dtype=pixels[0].dtype, pin_memory=True) for _ in range(2)]
            self.copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._wait_for_older_passes()
        slot, self.turn = self.turn, 1 - self.turn
        self.copied[slot].synchronize()  # the copy out of this buffer, two passes ago
        torch.stack(pixels, out=self.buffers[slot][: len(pixels)])
        self.buffers[slot][len(pixels) :].zero_()
        with torch.cuda.stream(self.stream):
            batch: torch.Tensor = self.buffers[slot].to(self.device, non_blocking=True)
            self.copied[slot].record(self.stream)
        current = torch.cuda.current_stream()
        current.wait_stream(self.stream)
        batch.record_stream(current)
        return batch

    def _wait_for_older_passes(self) -> None:
        import torch

        queued = torch.cuda.Event()  # type: ignore[no-untyped-call]
        queued.record()
        self.computed.append(queued)
        if len(self.computed) > IN_FLIGHT:
            self.computed.popleft().synchronize()
