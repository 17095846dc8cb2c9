"""Counter-based randomness: a number that depends on (seed, purpose, uid) and on nothing else.

The order of work, the number of workers and the other samples cannot change it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash


def uniform_noise(uids: Sequence[str], seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """(n,) numbers in the open interval (0, 1), one per uid.

    53 bits of XXH3-64 over the uid, seeded by XXH3-64 of (seed, purpose); the half step keeps 0 and 1 out.
    """
    key = xxhash.xxh3_64_intdigest(f"{seed}/{purpose}".encode())
    bits = np.fromiter((xxhash.xxh3_64_intdigest(uid.encode(), key) for uid in uids), np.uint64, len(uids))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gumbel_noise(uids: Sequence[str], seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """(n,) standard Gumbel numbers, one per uid."""
    noise: npt.NDArray[np.float64] = -np.log(-np.log(uniform_noise(uids, seed, purpose)))
    return noise
