"""AlignGPT's alignment levels (arXiv:2405.14129): a learned vector says how well a caption fits its image.

The CLIP score of a training sample falls into one of N buckets of equal count; the bucket's vector (N x d, Xavier) is
put right before the image's tokens. So poor captions are learned as such and do not speak for good ones. The cuts are
quantiles of all training samples together: quantiles of each source would hide that sources differ in quality. They
are saved with the vectors.

Evaluation and generation have no score to go by. AlignGPT's instruction tuning learns there a mixture of the first
N - 1 vectors beside the last; there is no such stage here, so the last one is taken: the level of the best captions,
which are what is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from schemas.columns import CLIP_SCORE
from schemas.errors import RecipeError
from stages.alignment.alignment_level import level, level_cuts
from stages.train.options.option import Option, part
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]


class AlignmentLevels(Option):
    """How many levels."""

    name: ClassVar[str] = "levels"
    fixed: ClassVar[tuple[str, ...]] = ("cuts",)

    count: int = Field(8, ge=2, le=100)

    def start(self, width: int, seed: int, cuts: Doubles | None = None) -> "torch.nn.Module":
        """The part with its first vectors.

        Args:
            width: of the language model's embeddings.
            seed: of the vectors.
            cuts: (N - 1,) the smallest score of each level above the first; None: they are loaded.
        """
        import torch

        vectors = torch.empty(self.count, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            torch.nn.init.xavier_uniform_(vectors)
        edges = torch.zeros(self.count - 1, dtype=torch.float64) if cuts is None else torch.from_numpy(cuts)
        return part(self, {"vectors": vectors, "cuts": edges})

    def scores(self, corpora: Mapping[str, Corpus]) -> tuple[Doubles, list[str]]:
        """CLIP scores of all training samples with an image, NaN where there is none, and their keys."""
        found: list[float] = []
        keys: list[str] = []
        for name in sorted(corpora):
            lines = zip(corpora[name].keys, corpora[name].images, sample_scores(corpora[name]).tolist(), strict=True)
            pictured = [(key, score) for key, image, score in lines if image]
            keys += [key for key, _ in pictured]
            found += [score for _, score in pictured]
        return np.array(found, np.float64), keys

    def cuts(self, scores: Doubles, keys: Sequence[str]) -> Doubles:
        """(N - 1,) quantiles of all training samples' CLIP scores.

        Raises:
            RecipeError: a sample has no score.
        """
        if len(missing := np.flatnonzero(np.isnan(scores))):
            raise RecipeError(
                f"`levels` need the {CLIP_SCORE.name} of every training sample, but {len(missing)} of {len(scores)} "
                f"have none, e.g. {keys[missing[0]]!r}; score the pool with `clip` and export the column: "
                f"`export: {{columns: [{CLIP_SCORE.name}]}}`"
            )
        return level_cuts(scores, self.count)

    def before(self, part: Any, tokens: "torch.Tensor", levels: "torch.Tensor | None") -> "torch.Tensor":
        """(n, 1 + v, d) visual tokens (n, v, d) behind the vector of each one's level (n,); None: the highest."""
        import torch

        vectors = part.vectors[-1].expand(len(tokens), -1) if levels is None else part.vectors[levels]
        return torch.cat([vectors[:, None].to(tokens.dtype), tokens], dim=1)


def sample_scores(corpus: Corpus) -> Doubles:
    """(n,) CLIP scores; NaN where there is none."""
    values = corpus.columns.get(CLIP_SCORE.name, (None,) * len(corpus))
    return np.array([np.nan if value is None else value for value in values], np.float64)


def levels(part: Any, scores: Doubles) -> npt.NDArray[np.int64]:
    """(n,) levels of CLIP scores, from 0 (worst), by the cuts of a part; what has no score has the highest."""
    return level(scores, part.cuts.cpu().numpy()).astype(np.int64) - 1
