"""A connector on real photos: it learns to use the image, by pairs it never saw.

Tower: the real dual encoder. Language model: the small one that cuvee ships, which knows the demo's captions and no
photo's: there is no other here.
"""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.demo.recipe import LANGUAGE_MODEL
from pipeline.train import Arm, compare
from stages.train.comparison import Comparison
from stages.train.connector import load_connector
from stages.train.metrics.evaluation import evaluate
from stages.train.run import connector_card
from stages.train.samples import read_pairs
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench


@pytest.fixture(scope="module")
def settings(shared: Path) -> TrainSettings:
    encoder = shared / "models" / "tiny-dual-encoder"
    if not encoder.is_dir():
        pytest.skip("the real dual encoder ../shared/models/tiny-dual-encoder is not here")
    given = {"vision_model": str(encoder), "language_model": str(LANGUAGE_MODEL)}
    small = {"budget": {"steps": 300}, "batch": 16, "seeds": 1, "learning_rate": 1e-2, "generated": 16}
    return TrainSettings.model_validate({**given, **small, "visual_tokens": 9})


@pytest.mark.slow
def test_held_out_loss_falls_and_the_image_is_used(shared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    photos = tuple(map(str, sorted((shared / "data" / "pool" / "photos").glob("*.tar"))))
    pairs = list(read_pairs([str(shared / "data" / "target" / "photos" / "00000.tar")]))
    held = pa.table({name: [getattr(pair, name) for pair in pairs] for name in ("key", "image", "caption")})
    found = compare(settings, [Arm("photos", photos)], held, tmp_path / "run", seed=0)
    run = found["arms"]["photos"]["runs"][0]
    assert run["metrics"]["visual_use_low"] > 0, "another image than the true one is worse, beyond chance"
    comparison = Comparison(
        settings.located(), {"photos": list(photos)}, tmp_path / "run", tmp_path / "run" / "features", 0
    )
    comparison.read(held)
    bench = Workbench(comparison)
    untrained = connector_card(settings, bench.frozen, "0/0")
    before = evaluate(untrained.bridge(), bench.frozen, bench.asked, 16)
    assert run["metrics"]["nll_per_token"] < before["nll_per_token"]
    models = {"vision": settings.vision_identity, "language_model": settings.language_identity}
    saved, _ = load_connector(tmp_path / "run" / "connectors" / "photos-0", **models)
    assert evaluate(saved, bench.frozen, bench.asked, 16) == run["metrics"]
