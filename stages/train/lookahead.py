"""The batches to come, under the weights of now: a guess where these change, and nothing depends on it."""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stages.train.sampler import MixtureSampler

Doubles = npt.NDArray[np.float64]
Batch = list[tuple[str, int]]


class Lookahead:
    """Walks a run's order some steps ahead, with a sampler of its own."""

    def __init__(self, keys: Mapping[str, Sequence[str]], batch: int, seed: str, steps: int) -> None:
        """`steps` is how far it looks; the others are the run's sampler's."""
        self.steps = steps
        self._sampler = MixtureSampler(keys, batch, seed)
        self._coming: deque[Batch] = deque()
        self._weights = np.empty(0)

    def after(self, drawn: Batch, state: dict[str, list[int]], weights: Doubles) -> list[Batch]:
        """The batches behind one.

        Args:
            drawn: the batch.
            state: of the run's sampler, behind it.
            weights: (S,) that it was drawn by.
        """
        foreseen = self._coming.popleft() if self._coming else None
        if foreseen != drawn or not np.array_equal(weights, self._weights):
            self._coming.clear()
            self._sampler.state, self._weights = state, weights
        while len(self._coming) < self.steps:
            self._coming.append(self._sampler.ids(weights))
        return list(self._coming)
