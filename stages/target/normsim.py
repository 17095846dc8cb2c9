"""NormSim (Wang et al., arXiv:2405.19547): how near an image is to the target's images, || X_target f ||_p.

p = 2: the root of the sum of squared dot products with all n target embeddings, in [0, sqrt(n)]; through the d x d Gram
matrix, so target size costs nothing. p = infinity: the largest absolute one, in [0, 1]. The authors filter by the CLIP
loss first, then take the top fifth of the pool by NormSim_inf; values of another target are another scale for p = 2.
"""

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from schemas.columns import IMAGE_EMBEDDING, NORMSIM_2, NORMSIM_INF
from schemas.tables import TARGET_ROLE
from stages.fit import Fit
from stages.fitted_stage import Examples, FittedStage
from stages.stage import Scorer
from stages.vectors import Doubles, Vectors, blocks, dots, reasons, scored, vectors, whole_rows

TARGETS_AT_ONCE = 4096
EXACT_ROWS = 16
"""Rows whose squares float64 adds up exactly: 48 bits below the point and 4 above it."""


def gram(target: Vectors) -> Doubles:
    """(d, d) sum of the outer products of (n, d) rows: blocks are exact sums, added in order, so bits are fixed."""
    total = np.zeros((target.shape[1], target.shape[1]))
    for rows in blocks(len(target), EXACT_ROWS):
        part = target[rows].astype(np.float64)
        total += part.T @ part
    return total


def normsim_2(images: Vectors, matrix: Doubles) -> Doubles:
    """(n,) roots of f G f for (n, d) rows f and the target's Gram matrix G."""
    rows = images.astype(np.float64)
    found: Doubles = np.sqrt(np.maximum(np.einsum("nd,nd->n", rows @ matrix, rows), 0.0))
    return found


def normsim_inf(images: Vectors, target: Vectors) -> Doubles:
    """(n,) largest absolute dot products of (n, d) with (m, d) rows, in blocks of the target."""
    largest = np.zeros(len(images))
    for rows in blocks(len(target), TARGETS_AT_ONCE):
        np.maximum(largest, np.abs(dots(images, target[rows])).max(axis=1), out=largest)
    return largest


class NormSim(FittedStage):
    """NormSim_2 and NormSim_inf of the image embedding to those of the target.

    Learned: up to 65,536 target embeddings with the smallest hash(seed, uid), never held-out ones, and their Gram
    matrix. A target image is its own nearest: NormSim_inf of the target's rows is about 1.
    """

    kind: Literal["normsim"] = "normsim"

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE_EMBEDDING,)
    writes: ClassVar[tuple[pa.Field, ...]] = (NORMSIM_2, NORMSIM_INF)
    learns_from: ClassVar[tuple[str, ...]] = (TARGET_ROLE,)
    batch_rows: ClassVar[int] = 1024

    def learn(self, examples: Examples) -> Fit:
        """Keep the target's embeddings and add up their Gram matrix."""
        target = vectors(examples.rows[TARGET_ROLE][IMAGE_EMBEDDING.name].to_arrow())
        return Fit({"target": target, "gram": gram(target)}, {"images": len(target)})

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer; holds the target in float16."""
        matrix, target = fit.arrays["gram"], fit.arrays["target"]

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            whole = whole_rows([batch[IMAGE_EMBEDDING.name]])
            found = vectors(batch[IMAGE_EMBEDDING.name].filter(pa.array(whole)), matrix.shape[0])
            two, largest = normsim_2(found, matrix), normsim_inf(found, target)
            columns = [scored(two, whole, NORMSIM_2.type), scored(largest, whole, NORMSIM_INF.type), reasons(whole)]
            return pa.record_batch(columns, self.returns())

        return score
