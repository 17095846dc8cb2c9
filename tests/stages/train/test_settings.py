import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import ContractError, CuveeError, RecipeError
from stages.train.bridge import Bridge
from stages.train.budget import Budget
from stages.train.connector import ConnectorCard, load_connector, save_connector
from stages.train.connectors.mlp import Mlp
from stages.train.language_model import load_language_model
from stages.train.settings import TrainSettings

Settings = Callable[..., TrainSettings]


def test_models_are_told_by_content_not_by_path(settings: Settings, language_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(language_folder, copy)
    (copy / "README.md").write_text("another text")
    assert settings(language_model=str(copy)).identity() == settings().identity()
    assert settings(checkpoint_steps=9).identity() == settings().identity()
    facts = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**facts, "rms_norm_eps": 1e-3}))
    assert settings(language_model=str(copy)).identity() != settings().identity()


def test_relative_places_become_absolute(
    settings: Settings, language_folder: Path, vision_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(language_folder.parent)
    made = settings(language_model=language_folder.name, vision_model=f"local-dir:{vision_folder}")
    made.check()
    assert made.located().language_folder == language_folder.resolve()
    assert made.located().identity() == settings().identity()


def test_what_does_not_fit_is_refused(settings: Settings, tmp_path: Path) -> None:
    for wrong in ({"samples": 5, "steps": 5}, {}, {"steps": 0}, {"epoch": 1}, {"epochs": 0}):
        with pytest.raises(ValidationError):
            Budget.model_validate(wrong)
    with pytest.raises(ValidationError):
        settings(connector="perceive")
    with pytest.raises(RecipeError, match="neither a folder nor in the local hub cache"):
        settings(language_model=str(tmp_path / "missing")).check()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RecipeError, match=r"expected config\.json"):
        settings(language_model=str(tmp_path)).check()
    with pytest.raises(RecipeError, match="random"):
        settings(vision_model="ViT-B-32").check()
    with pytest.raises(RecipeError, match="no model files"):
        settings(vision_model=f"local-dir:{tmp_path / 'missing'}").check()


def test_a_budget_in_epochs_becomes_one_in_samples(settings: Settings) -> None:
    made = settings(budget={"epochs": 2.5}, batch=4)
    with pytest.raises(ContractError, match="epochs"):
        _ = made.steps
    assert made.sized(10).steps == 7 and made.sized(10).budget == Budget(samples=25)
    assert settings(batch=4).sized(10) == settings(batch=4)


def test_what_most_runs_do_without_is_named_where_it_is_set(settings: Settings) -> None:
    plain = settings().identity()
    assert not {"schedule", "replay", "start", "infinite"} & set(plain)
    assert plain["budget"] == {"samples": None, "steps": 6}
    steered = settings(schedule={"kind": "doge", "mu": 0.1})
    assert steered.identity()["schedule"] | {"kind": "doge", "mu": 0.1, "version": 1} == steered.identity()["schedule"]
    assert TrainSettings.model_validate(steered.model_dump(mode="json")) == steered
    replayed = settings(replay={"shards": ["a.tar"], "share": 0.1}).identity()
    assert replayed["replay"] == {"share": 0.1}, "what lies in the tars is told by the samples"
    for wrong, said in (
        ({"schedule": {"kind": "dog"}}, "expected one of aioli, doge, doremi"),
        ({"schedule": {"kind": "doge", "nu": 1}}, "nu"),
        ({"schedule": "doge"}, "schedule"),
        ({"infinite": {}}, "set `floor`"),
        ({"replay": {"shards": [], "share": 0.5}}, "shards"),
        ({"replay": {"shards": ["a.tar"], "share": 1.0}}, "share"),
    ):
        with pytest.raises(ValidationError, match=said):
            settings(**wrong)


def test_a_connector_comes_back_and_only_between_its_models(tmp_path: Path) -> None:
    card = ConnectorCard(
        connector=Mlp(hidden=5), vision_width=6, language_width=4, visual_tokens=16, grid=(4, 4), vision="tower",
        language_model="lm", init_seed=3,
    )  # fmt: skip
    module = Bridge(card.build())
    assert all((a == b).all() for a, b in zip(module.parameters(), card.build().parameters(), strict=True))
    save_connector(module, card, tmp_path / "connector")
    save_connector(module, card, tmp_path / "connector")
    loaded, found = load_connector(tmp_path / "connector", vision="tower", language_model="lm")
    assert found == card
    assert all((a == b).all() for a, b in zip(module.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(CuveeError, match="language_model = 'lm', but this run has 'another'"):
        load_connector(tmp_path / "connector", vision="tower", language_model="another")
    with pytest.raises(CuveeError, match="vision = 'tower'"):
        load_connector(tmp_path / "connector", vision="another", language_model="lm")
    with pytest.raises(CuveeError, match="inject_layer = 0, but this run has 2"):
        load_connector(tmp_path / "connector", vision="tower", language_model="lm", inject_layer=2)
    with pytest.raises(CuveeError, match=r"options = \{\}, but this run has \{'norms': 'llm'\}"):
        load_connector(tmp_path / "connector", vision="tower", language_model="lm", options={"norms": "llm"})
    with pytest.raises(CuveeError, match="holds no connector"):
        load_connector(tmp_path / "nothing", vision="tower", language_model="lm")


def test_a_language_model_that_does_not_load_is_refused(language_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(language_folder, tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(CuveeError, match="does not load"):
        load_language_model(tmp_path / "broken")


def test_what_was_saved_before_there_were_kinds_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    old = {"connector": "mlp", "hidden": 5, "vision_width": 6, "language_width": 4, "visual_tokens": 9, "vision": "v"}
    card = ConnectorCard.model_validate({**old, "language_model": "lm", "init_seed": 3})
    assert card.connector == Mlp(hidden=5) and card.grid.cells == 9 and card.inject_layer == 0
    assert ConnectorCard.model_validate_json(card.model_dump_json()) == card
    module = card.build()
    (tmp_path / "connector.json").write_text(json.dumps({**old, "language_model": "lm", "init_seed": 3}))
    save_file({name: value + 1 for name, value in module.state_dict().items()}, tmp_path / "connector.safetensors")
    bridge, found = load_connector(tmp_path, vision="v", language_model="lm")
    assert found == card
    assert all((a + 1 == b).all() for a, b in zip(module.parameters(), bridge.parameters(), strict=True))


def test_an_mlp_is_told_alike_however_it_is_named(settings: Settings) -> None:
    assert settings().identity()["connector"] == "mlp" and "inject_layer" not in settings().identity()
    assert settings(connector={"kind": "mlp", "hidden": 9}).identity() == settings(hidden=9).identity()
    linear = settings(connector="linear").identity()["connector"]
    assert linear == {"kind": "linear", "version": 1}
    made = settings(connector={"kind": "linear"}, inject_layer=1)
    assert TrainSettings.model_validate(made.model_dump(mode="json")) == made
    assert made.identity()["inject_layer"] == 1
    with pytest.raises(ValidationError, match="no such layer"):
        settings(connector="linear", hidden=4)
