"""How far a selection is from the target in embedding space, by optimal transport.

The pool is cut into cells once, by k-means; a selection is how its rows fall into them, at the means of all the pool's
rows there. So every selection is measured on the same points, and only its choice counts.
"""

import numpy as np
import numpy.typing as npt

from stages.atoms import Atoms
from stages.transport.exact import solve_where_held

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def target_distance(counts: Integers, points: Doubles, target: Atoms) -> float | None:
    """Squared 2-Wasserstein distance of `counts` (k,) rows at points (k, d) to the target: 0 to 4 for unit vectors.

    None where there are no rows.
    """
    if not counts.any():
        return None
    costs = np.stack([np.square(points - atom).sum(axis=1) for atom in target.points], axis=1)
    return solve_where_held(counts.astype(np.float64), target.weights, costs).value
