"""Connected components by partition: a partition's pairs shrink to stars around its roots, and stars merge alike."""

from collections.abc import Sequence

import numpy as np

from stages.near_texts.shingles import Integers

Stars = tuple[Integers, Integers]
"""Places, each once and ascending, and for each the smallest place that it is connected with."""


def stars(first: Integers, second: Integers) -> Stars:
    """The stars of pairs of places: at most as many edges as there are places, however many pairs there were."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places, local = np.unique(np.concatenate([first, second]), return_inverse=True)
    n = len(places)
    graph = coo_array((np.ones(len(first), np.bool_), (local[: len(first)], local[len(first) :])), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, smallest = np.unique(labels, return_index=True)  # places ascend, so the first of a label is its smallest
    return places, places[smallest[labels]]


def merged(found: Sequence[Stars]) -> Stars:
    """The stars of all partitions together; how pairs fell into partitions does not matter."""
    nothing = np.zeros(0, np.int64)
    first = np.concatenate([nothing, *(places for places, _ in found)])
    second = np.concatenate([nothing, *(roots for _, roots in found)])
    return stars(first, second)
