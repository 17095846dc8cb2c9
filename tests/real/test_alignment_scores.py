"""Scores from embeddings on real photographs: people's judgements, and captions that were moved to another photo."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.judgements import Data, auc, frame, methods, samples, scores, shuffled
from bench.judgements import embedded as embedding
from schemas.columns import CLIP_SCORE
from stages.alignment.clip.stage import Clip
from stages.alignment.negcliploss import NegCLIPLoss
from stages.fitted_stage import Examples


@pytest.fixture(scope="module")
def photos(shared: Path) -> pl.DataFrame:
    """600 photographs of the pool with their captions."""
    model = shared / "models" / "tiny-dual-encoder"
    if not model.is_dir():
        pytest.skip("the real dual encoder ../shared/models/tiny-dual-encoder is not here")
    pairs = [pair for _, pair in zip(range(600), samples(shared / "data/pool/photos"), strict=False)]
    return frame(*embedding(Clip(model=str(model), device="cpu"), pairs), "photos", 0).sort("uid")


def test_negcliploss_does_not_lose_to_the_cosine_on_shuffled_captions(photos: pl.DataFrame) -> None:
    cosine, negative = [], []
    for seed in range(3):
        rows, true = shuffled(photos, seed)
        found = scores(NegCLIPLoss(), rows, Examples({"pool": rows}, seed, {}), "negcliploss")
        plain = rows[CLIP_SCORE.name].to_numpy().astype(np.float64)
        cosine.append(auc(plain[true], plain[~true]))
        negative.append(auc(found[true], found[~true]))
    print(f"AUC of true over shuffled pairs: cosine {cosine}, negcliploss {negative}")
    assert np.mean(cosine) > 0.97
    assert np.mean(negative) >= np.mean(cosine)


def test_what_judges_pairs_agrees_with_people(photos: pl.DataFrame, shared: Path, tmp_path: Path) -> None:
    from scipy.stats import kendalltau

    class Judged(Data):
        """Without the pool: what learns learns from the photographs."""

        def __init__(self) -> None:
            self.shared, self.cache = shared, tmp_path
            self.stage = Clip(model=str(shared / "models/tiny-dual-encoder"), device="cpu")
            self.writers = {"text_embedding": self.stage}

    rows, experts = Judged().judged()
    examples = Examples({"pool": photos, "target": photos}, 0, Judged().writers)
    found = {"clip_score": rows[CLIP_SCORE.name].to_numpy().astype(np.float64)}
    found |= {name: scores(stage, rows, examples, column) for name, (stage, column) in methods(22.6).items()}
    tau = {name: kendalltau(value, experts.mean(axis=1), variant="b").statistic for name, value in found.items()}
    print({name: round(value, 3) for name, value in tau.items()})
    assert tau["clip_score"] > 0.45 and tau["negcliploss, T 0.01"] > 0.43 and tau["alignment_level"] > 0.35
    assert tau["calibrated_clip_score"] == pytest.approx(tau["clip_score"], abs=1e-3), "one source: the same order"
    assert max(abs(tau["normsim_2"]), abs(tau["visualness"])) < 0.15, "image or text alone judge no pair"
