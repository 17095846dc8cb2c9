import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.train.logit_correction.caption_prior import caption_log_prior, token_counts
from stages.train.samples import Corpus


def corpus(captions: list[list[int]], whole: list[bool]) -> Corpus:
    names = tuple(str(i) for i in range(len(captions)))
    tokens = np.array([token for ids in captions for token in ids], np.int32)
    offsets = np.cumsum([0, *map(len, captions)], dtype=np.int64)
    return Corpus(names, names, tokens, offsets, np.array(whole), {})


def test_counts_hold_the_end_of_whole_captions() -> None:
    sources = {"shop": corpus([[3, 3, 4]], [True]), "art": corpus([[2], [2, 4]], [True, False])}
    assert token_counts(sources, 6, end=1).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 2, 1, 0]]


def test_the_correction_by_its_formula() -> None:
    counts = np.array([[6, 2, 0, 0], [2, 8, 10, 0]])
    pooled, c, beta = counts.sum(0) / 28, 2.0, 0.7
    found = caption_log_prior(counts, c, beta)
    for s in range(2):
        for v in range(3):
            ratio = (counts[s, v] + c * pooled[v]) / (counts[s].sum() + c) / pooled[v]
            assert found[s, v] == pytest.approx(np.clip(beta * np.log(ratio), -3, 3))
    assert found[:, 3].tolist() == [0, 0]


def test_what_all_sources_say_alike_is_not_corrected() -> None:
    alike = np.array([[10, 30, 60], [20, 60, 120]])
    assert caption_log_prior(alike, 5.0, 1.0) == pytest.approx(np.zeros((2, 3)), abs=1e-12)
    apart = np.array([[10**6, 0], [0, 10**6]])
    assert caption_log_prior(apart, 1.0, 1.0)[0].tolist() == [pytest.approx(np.log(2), abs=1e-5), -3]
    assert not caption_log_prior(apart, 1.0, 0.0).any()


@pytest.mark.parametrize(
    ("smoothing", "beta", "counts", "said"),
    [
        (0.0, 1.0, [[1]], "smoothing 0.0"),
        (1.0, 1.5, [[1]], "beta 1.5"),
        (1.0, 1.0, [[0]], "hold no token"),
    ],
)
def test_what_has_no_meaning_is_refused(smoothing: float, beta: float, counts: list[list[int]], said: str) -> None:
    with pytest.raises(CuveeError, match=said):
        caption_log_prior(np.array(counts), smoothing, beta)
