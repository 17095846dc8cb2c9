"""Token edit distance of generated captions: near linear in per-token skill, unlike exact match (arXiv:2304.15004)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.train.loop import Frozen
from stages.train.samples import Corpus

if TYPE_CHECKING:
    from stages.train.bridge import Bridge


@dataclass(frozen=True)
class Written:
    """A caption that was generated."""

    sample: int
    """Which of the corpus."""
    ids: tuple[int, ...]
    distance: float
    """From the true one, in [0, 1]."""


def edit_distance(left: Sequence[int], right: Sequence[int]) -> float:
    """Levenshtein distance of two token lists over the longer one's length, in [0, 1]; 0 for two empty ones."""
    row = list(range(len(right) + 1))
    for i, mine in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(right, start=1):
            before, row[j] = row[j], min(before + (mine != theirs), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(left), len(right), 1)


def written_captions(
    bridge: "Bridge", frozen: Frozen, corpus: Corpus, shown: Sequence[int], batch: int
) -> list[Written]:
    """Greedy captions of some samples, each held against the true one."""
    found: list[Written] = []
    most = int(np.diff(corpus.offsets).max())
    for start in range(0, len(shown), batch):
        ids = shown[start : start + batch]
        seen = frozen.language.show(bridge, frozen.embeddings([corpus.images[i] for i in ids]))
        rows = frozen.language.generate(seen, most, bridge)
        found += [Written(i, tuple(r), edit_distance(r, corpus.caption(i))) for r, i in zip(rows, ids, strict=True)]
    return found


def token_edit_distance(written: Sequence[Written]) -> dict[str, float]:
    """Mean over captions; empty where none was generated."""
    return {"token_edit_distance": float(np.mean([each.distance for each in written]))} if written else {}
