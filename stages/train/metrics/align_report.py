"""At which layer of the language model do captions resemble what a connector says? (DeepInsert, arXiv:2504.19327)

Scores between connector outputs, pooled per image, and the text-only states of the images' captions at the input of
every layer: mutual nearest neighbours and unbiased CKA and CKNNA, each beside what shuffled images score. Where images
could be inserted is recommended by a heuristic of ours: the first layer within 95 % of the best mutual-kNN. It has to
be checked against held-out losses of connectors that were trained at that layer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.noise import uniform_noise
from stages.train.metrics.cka import cka_of_kernels, cknna_of_kernels
from stages.train.metrics.kernels import gram, refuse_few
from stages.train.metrics.mutual_knn import chance, mutual_knn_of_kernels

Doubles = npt.NDArray[np.float64]
NEAR_BEST = 0.95
SHUFFLES = 8
NEIGHBOURS = 10


def align_report(images: Doubles, layers: Sequence[Doubles], seed: int, k: int = NEIGHBOURS) -> dict[str, Any]:
    """Per layer the scores of `alignment`, and the layer that the heuristic recommends.

    Args:
        images: (n, d) mean connector output, a row per image.
        layers: (n, e) mean caption state at the input of layer 0, 1, ...
        seed: of the shuffles.
        k: neighbours; at most n - 1.

    Raises:
        CuveeError: fewer images than neighbours.
    """
    found = [alignment(images, layer, seed, k) for layer in layers]
    scores = [layer["mutual_knn"] for layer in found]
    best = max(scores)
    chosen = next(number for number, score in enumerate(scores) if score >= NEAR_BEST * best)
    recommended = {"inject_layer": chosen, "by": "mutual_knn", "within": NEAR_BEST, "heuristic": True}
    return {"layers": found, "recommended": recommended, "neighbours": k, "images": len(images)}


def alignment(left: Doubles, right: Doubles, seed: int, k: int = NEIGHBOURS) -> dict[str, float]:
    """Scores of paired (n, d) and (n, e) rows beside what they are without the pairing.

    `mutual_knn` in [0, 1], with `mutual_knn_chance`; `cka` and `cknna` at most 1, 0 expected by chance; each with
    `..._mismatched`, the mean of 8 shuffles of one side's rows.

    Raises:
        CuveeError: other numbers of rows, or no more than k of them.
    """
    refuse_few(left, right, k)
    mine, theirs = gram(left), gram(right)
    matched = _scores(mine, theirs, k)
    orders = [_order(len(mine), seed, shuffle) for shuffle in range(SHUFFLES)]
    without = [_scores(mine, theirs[np.ix_(order, order)], k) for order in orders]
    mismatched = {f"{name}_mismatched": float(np.mean([scores[name] for scores in without])) for name in matched}
    return {**matched, **mismatched, "mutual_knn_chance": chance(len(mine), k)}


def _scores(left: Doubles, right: Doubles, k: int) -> dict[str, float]:
    return {
        "mutual_knn": mutual_knn_of_kernels(left, right, k),
        "cka": cka_of_kernels(left, right),
        "cknna": cknna_of_kernels(left, right, k),
    }


def _order(n: int, seed: int, shuffle: int) -> npt.NDArray[np.int64]:
    return np.argsort(uniform_noise([str(i) for i in range(n)], seed, f"mismatched pairs {shuffle}"), kind="stable")
