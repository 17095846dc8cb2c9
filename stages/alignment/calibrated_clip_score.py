"""A CLIP score that means the same in every source, measured against the source's own mismatched pairs.

Cosines of photographs, drawings and product shots lie in different ranges, so one threshold cannot serve a mixed pool,
and a quantile within the source always finds a worst tenth, of a clean source too. Here zero is what an image scores
with a caption of another sample of its source, and the unit is the spread of such scores:

    (s - median) / (1.4826 median |s' - median|)   over scores s' of mismatched pairs.

At 2, a pair fits clearly better than chance does, whatever the source; a shuffled source lies around 0 as a whole.
Pairs of equal content count as one: a placeholder that fills half a source is no mismatch of itself.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.columns import CALIBRATED_CLIP_SCORE, CLIP_SCORE, CONTENT_HASH, IMAGE_EMBEDDING, TEXT_EMBEDDING
from schemas.errors import CuveeError
from schemas.tables import EVAL_ROLE, POOL_ROLE, TARGET_ROLE
from stages.fit import Fit
from stages.fitted_stage import Examples, FittedStage
from stages.noise import uniform_noise
from stages.stage import Scorer
from stages.vectors import Doubles, Vectors, reasons, row_dots, scored, vectors, whole_rows

SHIFTS = 8
"""Mismatched pairs per sample: its image with the captions of the next samples by hash."""
FEWEST = 32
"""Samples below which a source is measured against the whole pool's mismatched pairs."""
DEVIATION = 1.4826
"""Standard deviations per median absolute deviation, of a normal distribution."""
WHOLE_POOL = ""


def mismatched(images: Vectors, texts: Vectors, shifts: int = SHIFTS) -> Doubles:
    """Cosines of each image with the texts of the next `shifts` rows of (n, d), n > shifts, in a circle."""
    return np.concatenate([row_dots(images, np.roll(texts, -shift, axis=0)) for shift in range(1, shifts + 1)])


def centre_and_unit(cosines: Doubles) -> tuple[float, float]:
    """Median and scaled median absolute deviation; 0, which is no unit, where half of the cosines are equal."""
    centre = float(np.median(cosines))
    return centre, DEVIATION * float(np.median(np.abs(cosines - centre)))


class CalibratedClipScore(FittedStage):
    """The CLIP score in robust deviations above its source's mismatched pairs.

    Learned: per source median and deviation of the cosines of 8 mismatched pairs a sample, of up to 65,536 samples.
    Sources of fewer than 32 distinct samples or with one score for half of their mismatches, the target and the
    held-out set are measured against the mismatches of the pool.
    """

    version: ClassVar[int] = 2
    kind: Literal["calibrated_clip_score"] = "calibrated_clip_score"

    reads: ClassVar[tuple[pa.Field, ...]] = (CLIP_SCORE,)
    writes: ClassVar[tuple[pa.Field, ...]] = (CALIBRATED_CLIP_SCORE,)
    learns_from: ClassVar[tuple[str, ...]] = (POOL_ROLE,)
    learn_reads: ClassVar[tuple[pa.Field, ...]] = (CONTENT_HASH, IMAGE_EMBEDDING, TEXT_EMBEDDING)
    per_source: ClassVar[bool] = True

    def learn(self, examples: Examples) -> Fit:
        """Measure the pool as a whole, then each source.

        Raises:
            CuveeError: too few samples, or embeddings that tell nothing apart.
        """
        rows = examples.rows[POOL_ROLE]
        noise = uniform_noise(rows["uid"].to_list(), examples.seed, self.kind)
        rows = rows[np.argsort(noise, kind="stable")]
        distinct = _distinct(rows)
        if len(distinct) <= SHIFTS:
            raise CuveeError(f"{len(distinct)} distinct pool samples with embeddings; expected at least {SHIFTS + 1}")
        pool = centre, unit = _measured(distinct)
        if unit == 0:
            raise CuveeError(f"half of all mismatched pairs score {centre:.3g}: embeddings that tell nothing apart")
        parts = {str(name): part for (name,), part in rows.partition_by("source", as_dict=True).items()}
        found = {name: _own(_distinct(part)) or pool for name, part in sorted(parts.items())}
        return Fit(facts={"sources": {WHOLE_POOL: pool, **found}})

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer of one source.

        Raises:
            CuveeError: a pinned fit that has never seen the source.
        """
        centre, unit = _of(fit.facts["sources"], source)

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            whole = whole_rows([batch[CLIP_SCORE.name]])
            scores = batch[CLIP_SCORE.name].to_numpy(zero_copy_only=False)[whole].astype(np.float64)
            values = (scores - centre) / unit
            return pa.record_batch([scored(values, whole, CALIBRATED_CLIP_SCORE.type), reasons(whole)], self.returns())

        return score


def _distinct(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.unique(CONTENT_HASH.name, keep="first", maintain_order=True)


def _own(rows: pl.DataFrame) -> tuple[float, float] | None:
    """A source's own scale; None for too few rows, or a unit of 0."""
    found = _measured(rows) if len(rows) >= FEWEST else (0.0, 0.0)
    return found if found[1] else None


def _measured(rows: pl.DataFrame) -> tuple[float, float]:
    images, texts = (vectors(rows[name].to_arrow()) for name in (IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name))
    return centre_and_unit(mismatched(images, texts))


def _of(sources: dict[str, Sequence[float]], source: str) -> Sequence[float]:
    if source in (TARGET_ROLE, EVAL_ROLE, WHOLE_POOL):
        return sources[WHOLE_POOL]
    if source not in sources:
        raise CuveeError(
            f"calibrated_clip_score: source {source!r} is not in the fit, which knows {sorted(set(sources) - {''})}; "
            "run once without `fits`, then pin that run"
        )
    return sources[source]
