import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.train.logistic import fit_logistic
from stages.train.metrics.style_leakage import style_leakage


def world(n: int, gap: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    drawn = np.random.default_rng(seed)
    sources = ["photos" if i % 4 else "drawings" for i in range(n)]
    outputs = drawn.normal(size=(n, 6)) * 50
    outputs[:, 2] += [gap * 50 * (source == "photos") for source in sources]
    return outputs, sources, [f"image{i}" for i in range(n)]


def test_a_style_that_shows_is_found_and_one_that_does_not_is_not() -> None:
    shown = style_leakage(*world(400, gap=8.0), seed=0)
    assert shown["accuracy"] > 0.97 and shown["majority"] == pytest.approx(0.75)
    assert shown["low"] > 0.15 and shown["leakage"] == pytest.approx(shown["accuracy"] - shown["majority"])
    hidden = style_leakage(*world(400, gap=0.0), seed=0)
    assert hidden["low"] <= 0 <= hidden["high"]
    assert hidden == style_leakage(*world(400, gap=0.0), seed=0)


def test_twins_of_an_image_are_on_one_side() -> None:
    """Random outputs, each image twice: a split that parted twins would let the classifier know them by heart."""
    drawn = np.random.default_rng(0)
    outputs = np.repeat(drawn.normal(size=(60, 80)), 2, axis=0)
    sources = np.repeat([str(s) for s in drawn.integers(0, 2, 60)], 2).tolist()
    found = style_leakage(outputs, sources, np.repeat([f"i{n}" for n in range(60)], 2).tolist(), seed=1)
    assert found["accuracy"] < 0.65


def test_the_classifier_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    drawn = np.random.default_rng(3)
    features, labels = drawn.normal(size=(120, 5)), drawn.integers(0, 3, 120)
    weights, bias = fit_logistic(features, labels, 3, penalty=1.0)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(features, labels)
    logits = features @ weights.T + bias
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), theirs.decision_function(features), atol=1e-4)


def test_offsets_are_a_prior() -> None:
    """Without features the bias is the log ratio of what is counted and what the offsets say already."""
    labels = np.array([0] * 30 + [1] * 10)
    prior = np.log([[0.2, 0.8]])
    _, bias = fit_logistic(np.zeros((40, 1)), labels, 2, 1.0, np.repeat(prior, 40, axis=0))
    assert bias[0] - bias[1] == pytest.approx(np.log(3) - (prior[0, 0] - prior[0, 1]), abs=1e-5)


def test_one_source_is_refused() -> None:
    with pytest.raises(CuveeError, match="found 1 sources"):
        style_leakage(np.zeros((9, 2)), ["a"] * 9, [str(i) for i in range(9)], 0)
