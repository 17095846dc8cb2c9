import tracemalloc

import numpy as np
import pytest

from stages.near_vectors import references as module
from stages.near_vectors.references import closest_references
from stages.vectors import cosines
from tests.stages.duplicates.test_semdedup import planted


@pytest.mark.parametrize(("rows", "references"), [(1024, 8192), (7, 5)])
def test_the_first_of_the_closest_is_named(monkeypatch: pytest.MonkeyPatch, rows: int, references: int) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(module, "REFERENCES_AT_ONCE", references)
    asked, known = planted(60, 8).astype(np.float16), planted(40, 8, seed=1).astype(np.float16)
    known = np.concatenate([known, asked[:20], known[::-1], asked[:5]])
    exact = cosines(asked, known)
    place, cosine = closest_references(asked, known, 0.8)
    best = exact.max(axis=1)
    assert (place == np.where(best > 0.8, exact.argmax(axis=1), -1)).all()
    assert (cosine == np.where(best > 0.8, best, -np.inf)).all()
    assert (place >= 0).any() and (place < 0).any()


def test_equal_references_are_compared_once() -> None:
    """300 rows and 500 copies of a reference: 150,000 exact cosines of 64 numbers would take 77 MB a side."""
    one = planted(1, 64).astype(np.float16)
    tracemalloc.start()
    place, _ = closest_references(np.repeat(one, 300, axis=0), np.repeat(one, 500, axis=0), 0.9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (place == 0).all() and peak < 5e6
