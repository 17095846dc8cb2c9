"""Alignment levels as AlignGPT (arXiv:2405.14129) uses them: the CLIP score as one of a few buckets of equal count.

The cuts are quantiles of the whole pool: quantiles of each source would hide that sources differ in quality. The
connector of AlignGPT learns a vector per level, eight by default, and puts it before the caption.
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from schemas.columns import ALIGNMENT_LEVEL, CLIP_SCORE
from schemas.tables import POOL_ROLE
from stages.fit import Fit
from stages.fitted_stage import Examples, FittedStage
from stages.stage import Scorer
from stages.vectors import Doubles, reasons, scored, whole_rows


def level_cuts(scores: Doubles, levels: int) -> Doubles:
    """(levels - 1,) the smallest score of each level k above the first: number floor(k n / levels) of n, sorted."""
    places = np.arange(1, levels) * len(scores) // levels
    found: Doubles = np.sort(scores)[places]
    return found


def level(scores: Doubles, cuts: Doubles) -> npt.NDArray[np.int8]:
    """(n,) 1 + the number of cuts that a score reaches; equal scores have equal levels."""
    return (1 + np.searchsorted(cuts, scores, side="right")).astype(np.int8)


class AlignmentLevel(FittedStage):
    """The level 1 (worst) to `levels` (best) of a sample's CLIP score among all scores of the pool.

    Learned: the cuts, of up to 2^20 scores with the smallest hash(seed, uid). They stand in the export's manifest.
    """

    kind: Literal["alignment_level"] = "alignment_level"
    levels: int = Field(default=8, ge=2, le=100)

    reads: ClassVar[tuple[pa.Field, ...]] = (CLIP_SCORE,)
    writes: ClassVar[tuple[pa.Field, ...]] = (ALIGNMENT_LEVEL,)
    learns_from: ClassVar[tuple[str, ...]] = (POOL_ROLE,)
    learn_rows: ClassVar[int] = 1 << 20
    batch_rows: ClassVar[int] = 4096

    def learn(self, examples: Examples) -> Fit:
        """Cut the pool's scores into levels of equal count."""
        scores = examples.rows[POOL_ROLE][CLIP_SCORE.name].to_numpy().astype(np.float64)
        return Fit(facts={"cuts": level_cuts(scores, self.levels).tolist()})

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer."""
        cuts = np.array(fit.facts["cuts"])

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            whole = whole_rows([batch[CLIP_SCORE.name]])
            scores = batch[CLIP_SCORE.name].to_numpy(zero_copy_only=False)[whole].astype(np.float64)
            return pa.record_batch(
                [scored(level(scores, cuts), whole, ALIGNMENT_LEVEL.type), reasons(whole)], self.returns()
            )

        return score
