"""How a model places a source: modality gap (arXiv:2203.02053), alignment and uniformity (arXiv:2005.10242).

    gap         || mean f - mean g ||                          in [0, 2]
    alignment   mean || f_i - g_i ||^2                          in [0, 4], lower is closer pairs
    uniformity  log mean exp(-2 || x_i - x_j ||^2) over i < j   in [-8, 0], lower is more spread out

for image embeddings f and text embeddings g of unit norm; uniformity x of either. A source whose uniformity is far
above the others' is one that the model cannot tell apart; where alignment is large, captions fit badly.
"""

from math import fsum
from typing import Any, Literal

import numpy as np
import polars as pl

from schemas.columns import IMAGE_EMBEDDING, TEXT_EMBEDDING
from stages.noise import uniform_noise
from stages.rule import Context, Rule, Verdict
from stages.vectors import Doubles, Vectors, blocks, dots, row_dots, vectors

MOST_ROWS = 4096
"""Samples of a source that are measured: those with the smallest hash(seed, uid)."""
AT_ONCE = 512


def _lengths(rows: Vectors) -> Doubles:
    return np.sqrt(row_dots(rows, rows))


def modality_gap(images: Vectors, texts: Vectors) -> float:
    """Distance of the centres of (n, d) image and text embeddings, each brought to norm 1."""
    centres = [(rows.astype(np.float64) / _lengths(rows)[:, None]).mean(axis=0) for rows in (images, texts)]
    return float(np.sqrt(fsum((centres[0] - centres[1]) ** 2)))


def alignment(images: Vectors, texts: Vectors) -> float:
    """Mean squared distance of the pairs of (n, d) embeddings at norm 1: 2 - 2 x the mean cosine."""
    cosines = row_dots(images, texts) / (_lengths(images) * _lengths(texts))
    return 2 - 2 * fsum(cosines) / len(cosines)


def uniformity(rows: Vectors) -> float | None:
    """Log of the mean Gaussian potential, t = 2, of all pairs of (n, d) rows at norm 1; None for fewer than two."""
    if len(rows) < 2:
        return None
    lengths, potentials = _lengths(rows), []
    for part in blocks(len(rows), AT_ONCE):
        cosines = dots(rows[part], rows) / np.outer(lengths[part], lengths)
        later = np.arange(len(rows)) > np.arange(part.start, part.stop)[:, None]
        potentials += [float(line[keep].sum()) for line, keep in zip(np.exp(4 * cosines - 4), later, strict=True)]
    return float(np.log(fsum(potentials) / (len(rows) * (len(rows) - 1) / 2)))


class EmbeddingGeometry(Rule):
    """Drops nothing: reports gap, alignment and uniformity per source as evidence, in the report and in run.json.

    Measured on the rows that are still there and have both embeddings, up to 4,096 a source.
    """

    kind: Literal["embedding_geometry"] = "embedding_geometry"

    def columns(self) -> tuple[str, ...]:
        """Both embeddings."""
        return (IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Measure each source."""
        names = list(self.columns())
        whole = rows.filter(pl.all_horizontal(pl.col(names).is_not_null()))
        identity = whole.select("uid", "source").sort("uid").collect()
        noise = uniform_noise(identity["uid"].to_list(), context.seed, self.kind)
        chosen = identity.with_columns(pl.Series("noise", noise)).sort("noise").group_by("source").head(MOST_ROWS)
        table = whole.join(chosen.lazy().select("uid"), on="uid", how="semi").sort("uid").collect()
        parts = {str(name): part for (name,), part in table.partition_by("source", as_dict=True).items()}
        measured = {
            name: geometry(*(vectors(part[column].to_arrow()) for column in names)) for name, part in parts.items()
        }
        statistics = sorted({statistic for found in measured.values() for statistic in found})
        evidence = {
            statistic: {name: measured[name][statistic] for name in sorted(measured)} for statistic in statistics
        }
        return Verdict(evidence=evidence)


def geometry(images: Vectors, texts: Vectors) -> dict[str, Any]:
    """Every statistic of one source."""
    return {
        "samples": len(images),
        "modality_gap": modality_gap(images, texts),
        "alignment": alignment(images, texts),
        "image_uniformity": uniformity(images),
        "text_uniformity": uniformity(texts),
    }
