"""Which samples stand in which batch: a function of (seed, epoch, step), the same for any number of workers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise


class IndexSampler:
    """Every epoch visits each sample once, ordered by noise keyed (seed, epoch, key); its state is the step."""

    def __init__(self, keys: Sequence[str], batch: int, seed: str) -> None:
        """`keys` in canonical order: samples with equal keys keep it.

        Raises:
            CuveeError: there are no samples.
        """
        if not keys:
            raise CuveeError("there is no sample to train on; every one lacks a decodable image or a caption")
        self.keys = keys
        self.batch = batch
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def ids(self, step: int) -> npt.NDArray[np.int64]:
        """(batch,) sample numbers of one step; a batch may reach into the next epoch."""
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        return np.array([self._at(*divmod(int(place), len(self.keys))) for place in places], np.int64)

    def _at(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            noise = uniform_noise(self.keys, 0, f"training order {self.seed}/{epoch}")
            self._order, self._epoch = np.argsort(noise, kind="stable"), epoch
        return int(self._order[place])
