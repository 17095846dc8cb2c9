from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.train.bridge import Bridge
from stages.train.comparison import Comparison
from stages.train.loop import train
from stages.train.metrics.bootstrap import bootstrap_interval
from stages.train.metrics.evaluation import evaluate
from stages.train.metrics.nll import label_counts, sample_losses
from stages.train.metrics.token_edit_distance import edit_distance
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench
from tests.stages.train.own_forward import log_probabilities

TOKENS = st.lists(st.integers(0, 3), max_size=7)


def brute_distance(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        )

    return distance(len(left), len(right))


@given(TOKENS, TOKENS)
def test_edit_distance_against_its_definition(left: list[int], right: list[int]) -> None:
    longest = max(len(left), len(right), 1)
    assert edit_distance(left, right) == brute_distance(tuple(left), tuple(right)) / longest


def test_known_edit_distances() -> None:
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0
    assert edit_distance([], []) == 0
    assert edit_distance([], [1, 2]) == 1
    assert edit_distance([1, 2, 3, 4], [1, 3, 4]) == 0.25


@pytest.fixture
def bench(
    settings: Callable[..., TrainSettings], write_shard: Callable[..., str], held_out: pa.Table, tmp_path: Path
) -> Workbench:
    comparison = Comparison(settings(), {"raw": [write_shard("raw", range(10))]}, tmp_path, tmp_path / "features", 7)
    comparison.read(pa.concat_tables([held_out, held_out.set_column(0, "key", [[f"twin{n}" for n in range(12)]])]))
    return Workbench(comparison)


def test_evaluation_against_one_sample_at_a_time(bench: Workbench) -> None:
    import torch

    made = bench.comparison.settings
    bridge = train(made, bench.frozen, bench.corpora["raw"], "7/0").bridge
    asked, language = bench.asked, bench.frozen.language
    found = evaluate(bridge, bench.frozen, asked, batch=5)
    losses, other_losses, distances = [], [], []
    with torch.inference_mode():
        for i in range(len(asked.corpus)):
            labels = [*asked.corpus.caption(i), *([language.eos] if asked.corpus.whole[i] else [])]
            for images, into in ((asked.corpus.images, losses), (asked.others, other_losses)):
                visual = bridge.connector(bench.frozen.embeddings([images[i]]))
                spoken = log_probabilities(language, visual[0], labels)
                into.append(-sum(float(row[label]) for row, label in zip(spoken, labels, strict=True)))
        for i in asked.shown:
            visual = bridge.connector(bench.frozen.embeddings([asked.corpus.images[i]]))
            begin = language.model.get_input_embeddings()(torch.tensor([[language.bos]]))
            written = language.model.generate(
                inputs_embeds=torch.cat([visual, begin], dim=1), do_sample=False, pad_token_id=language.eos,
                max_new_tokens=int(np.diff(asked.corpus.offsets).max()),
            )[0].tolist()  # fmt: skip
            written = written[: written.index(language.eos)] if language.eos in written else written
            distances.append(edit_distance(written, asked.corpus.caption(i)))
    tokens = label_counts(asked.corpus).sum()
    assert found["nll_per_token"] == pytest.approx(sum(losses) / tokens, rel=1e-5)
    assert found["visual_use_gap"] == pytest.approx((sum(other_losses) - sum(losses)) / tokens, abs=1e-5)
    assert found["token_edit_distance"] == pytest.approx(np.mean(distances))
    assert found["visual_use_low"] <= found["visual_use_gap"] <= found["visual_use_high"]


def test_another_image_is_never_the_same_content(bench: Workbench) -> None:
    asked = bench.asked
    assert len(asked.corpus) == 24 and asked.facts["images"] == 12
    assert all(mine != other for mine, other in zip(asked.corpus.images, asked.others, strict=True))
    assert sorted(set(asked.others)) == sorted(set(asked.corpus.images))


def test_the_gap_of_a_connector_blind_to_the_image_is_zero(bench: Workbench) -> None:
    import torch

    class Blind(torch.nn.Module):
        def forward(self, visual: torch.Tensor) -> torch.Tensor:
            return torch.ones(*visual.shape[:2], bench.frozen.language.width)

    found = evaluate(Bridge(Blind()), bench.frozen, bench.asked, batch=8)
    assert found["visual_use_gap"] == found["visual_use_low"] == found["visual_use_high"] == 0
    images = bench.asked.corpus.images
    assert np.array_equal(
        sample_losses(Bridge(Blind()), bench.frozen, bench.asked.corpus, images, 24),
        sample_losses(Bridge(Blind()), bench.frozen, bench.asked.corpus, images, 24),
    )


def test_bootstrap_resamples_images_and_covers_the_normal_interval() -> None:
    noise = np.random.default_rng(0)
    gaps = noise.normal(0.3, 1.0, 400)
    names = [f"image{number}" for number in range(400)]
    low, high = bootstrap_interval(gaps, np.ones(400), names, seed=1)
    half = 1.96 * gaps.std() / 20
    assert (low, high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=0.015)
    four = [name for name in names[:100] for _ in range(4)]
    low4, high4 = bootstrap_interval(np.repeat(gaps[:100], 4), np.ones(400), four, seed=1)
    narrow = bootstrap_interval(np.repeat(gaps[:100], 4), np.ones(400), names, seed=1)
    assert high4 - low4 == pytest.approx(2 * (narrow[1] - narrow[0]), rel=0.15)
