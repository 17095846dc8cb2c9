"""A pool whose embeddings come from a plugin, so that trials need no model."""

from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = '''
from typing import Literal
import numpy as np
import pyarrow as pa
from schemas.columns import CAPTION, IMAGE_EMBEDDING, TEXT_EMBEDDING
from stages.stage import Stage

VIEWS = np.random.Generator(np.random.Philox(5)).normal(size=(2, 2, 6, 16))

class TwoViews(Stage):
    """Image and caption embedding as two views of what the caption's number stands for; `beta` has views of its own."""
    kind: Literal["two_views"] = "two_views"
    reads, writes = (CAPTION,), (IMAGE_EMBEDDING, TEXT_EMBEDDING)
    def open(self):
        def score(batch):
            rows = [views(text) for text in batch["caption"].to_pylist()]
            columns = [pa.array([row[side] for row in rows], IMAGE_EMBEDDING.type) for side in (0, 1)]
            return pa.record_batch([*columns, pa.nulls(len(rows), pa.string())], self.returns())
        return score

def views(text):
    digits = [word for word in (text or "").split() if word.isdigit()]
    if not digits:
        return None, None
    number = int(digits[0])
    hidden = np.random.Generator(np.random.Philox(number)).normal(size=6)
    both = [hidden @ view for view in VIEWS[int(10_000 <= number < 20_000)]]
    return tuple((row / np.linalg.norm(row)).astype(np.float16) for row in both)
'''
TRIALS = """trials:
  design: {kind: lattice, divisions: 4}
  count: 4
  budgets: [128, 512]
  seeds: 2
  max_repeats: 10
  pilot: {kind: contrastive_probe, width: 8, batch: 32, candidates: 8, learning_rate: 0.01}
  held_out: 20
"""


@pytest.fixture
def recipe(make_pool: Callable[..., Path]) -> Callable[..., Path]:
    """Writes pool and recipe: 96 samples of `alpha` and of `beta`, 24 of a target that is like `alpha`."""

    def make(trials: str = TRIALS, *, shards: int = 4, rows: int = 24, more: str = "", **where: object) -> Path:
        path = make_pool(shards=shards, rows=rows, extra=f"{more}plugins: [own.py]\n{trials}", **where)
        path.write_text(path.read_text().replace("score:\n", "score:\n  - {kind: two_views}\n"))
        (path.parent / "own.py").write_text(PLUGIN)
        return path

    return make
