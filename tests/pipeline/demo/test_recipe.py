import json

import pytest
import yaml

from pipeline.demo.corpus import write_corpus
from pipeline.demo.recipe import demo_recipe
from schemas.errors import CuveeError
from schemas.recipe import Recipe


def test_the_recipe_names_what_is_there(tmp_path):
    folder = tmp_path / "demo"
    write_corpus(folder / "corpus", pairs=200)
    path = demo_recipe(folder)
    recipe = Recipe.model_validate(yaml.safe_load(path.read_text()))
    assert {source.source for source in recipe.pool} == {place.name for place in (folder / "corpus" / "pool").iterdir()}
    assert all(list(folder.glob(str(source.shards))) for source in (*recipe.pool, recipe.target))
    assert not [path for place in ("pool", "target") for path in (folder / "corpus" / place).rglob("truth*")]
    stamp = path.stat().st_mtime_ns
    assert demo_recipe(folder) == path and path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("pairs", [200, 3000])
def test_no_more_is_asked_for_than_the_cut_leaves(tmp_path, pairs):
    """Half of what is neither broken nor a copy passes the score cut; DSIR must ask for less."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps({"pairs": pairs}))
    recipe = Recipe.model_validate(yaml.safe_load(demo_recipe(tmp_path).read_text()))
    settings = {step.kind: step.settings() for step in recipe.select}
    left = (1 - 0.10 - 0.05 - 0.02) * pairs * settings["top_fraction"]["fraction"]
    assert settings["dsir"]["samples"] < 0.95 * left
    assert recipe.export.samples <= settings["dsir"]["samples"] * recipe.mix.settings()["max_repeats"]


def test_a_folder_without_corpus_is_refused(tmp_path):
    with pytest.raises(CuveeError, match=r"corpus\.json is not there"):
        demo_recipe(tmp_path)
