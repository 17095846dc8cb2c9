"""Which samples stand in which batch: a function of (seed, epoch, step), the same for any number of workers.

Several sources share a batch by their weights. How many come from each is the chairman assignment of Tijdeman (Discrete
Mathematics 32, 1980): sources take turns by deadline, so that under fixed weights none is ever a whole sample away from
its exact part of the samples drawn. Shares are counted in units of 2^-32, in integers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.noise import uniform_noise

Doubles = npt.NDArray[np.float64]
UNITS = 1 << 32
"""One sample, in the units in which shares are counted."""
SUM_TOLERANCE = 1e-6


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
        return np.array([self.at(int(place)) for place in places], np.int64)

    def at(self, place: int) -> int:
        """The sample that is drawn as number `place`, from 0; sample numbers of an epoch are all different."""
        epoch, place = divmod(place, len(self.keys))
        if epoch != self._epoch:
            noise = uniform_noise(self.keys, 0, f"training order {self.seed}/{epoch}")
            self._order, self._epoch = np.argsort(noise, kind="stable"), epoch
        return int(self._order[place])


class MixtureSampler:
    """Batches from several sources in given shares; within a source the order is that of `IndexSampler`.

    Under fixed weights, after every sample, each source's count is less than one from its exact part. Where weights
    change, what a source is owed or has had in advance is carried over, so that no share is too small to be drawn.
    """

    def __init__(self, keys: Mapping[str, Sequence[str]], batch: int, seed: str) -> None:
        """`keys` per source in canonical order.

        Raises:
            CuveeError: no source, or one without samples.
        """
        if empty := sorted(name for name in keys if not keys[name]):
            raise CuveeError(f"source {empty[0]!r} has no sample to draw; leave it out or give it some")
        if not keys:
            raise CuveeError("there is no source to draw from")
        self.names = tuple(sorted(keys))
        self.batch = batch
        self.state: dict[str, list[int]] = {"drawn": [0] * len(keys), "owed": [0] * len(keys)}
        """Per source, by name: samples drawn; units due to it (< 0: had in advance). Set it to continue."""
        self._orders = [IndexSampler(keys[name], batch, seed) for name in self.names]

    @property
    def drawn(self) -> dict[str, int]:
        """Samples drawn so far."""
        return dict(zip(self.names, self.state["drawn"], strict=True))

    def ids(self, weights: Doubles) -> list[tuple[str, int]]:
        """The next batch as (source, sample number).

        Args:
            weights: (S,) shares >= 0 that sum to 1, sources by name.

        Raises:
            CuveeError: the weights are no point on the simplex.
        """
        shares = unit_shares(weights, len(self.names))
        drawn, owed = list(self.state["drawn"]), list(self.state["owed"])
        batch = []
        for _ in range(self.batch):
            owed = [due + share for due, share in zip(owed, shares, strict=True)]
            turn = _turn(owed, shares)
            batch.append((self.names[turn], self._orders[turn].at(drawn[turn])))
            drawn[turn] += 1
            owed[turn] -= UNITS
        self.state = {"drawn": drawn, "owed": owed}
        return batch


def unit_shares(weights: Doubles, sources: int) -> list[int]:
    """Shares in whole units that sum to `UNITS`, by largest remainder; ties go to the first.

    Raises:
        CuveeError: the weights are no point on the simplex.
    """
    given = np.asarray(weights, np.float64)
    if given.shape != (sources,) or not (given >= 0).all() or abs(float(given.sum()) - 1) > SUM_TOLERANCE:
        raise CuveeError(f"expected {sources} weights >= 0 that sum to 1, found {given.tolist()}")
    exact = given / given.sum() * UNITS
    units = np.floor(exact).astype(np.int64)
    first = np.argsort(units - exact, kind="stable")[: UNITS - int(units.sum())]
    units[first] += 1
    return [int(unit) for unit in units]


def _turn(owed: Sequence[int], shares: Sequence[int]) -> int:
    """Of the sources that are owed enough, the one whose part would be exceeded first; equal ones by name.

    Enough is 1 / (2k - 2) samples, k the sources with a share; a part is exceeded at 1 - 1 / (2k - 2).
    """
    open_ = [place for place, share in enumerate(shares) if share]
    if len(open_) == 1:
        return open_[0]
    slack = 2 * len(open_) - 2
    due = [place for place in open_ if owed[place] * slack >= UNITS] or open_
    left = {place: (UNITS - owed[place]) * slack - UNITS for place in due}
    best = due[0]
    for place in due[1:]:
        if left[place] * shares[best] < left[best] * shares[place]:
            best = place
    return best
