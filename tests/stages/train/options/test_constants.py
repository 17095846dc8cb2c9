"""Every pair of an option and a constant: refused together where the table says so, and fine where it does not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.errors import RecipeError
from stages.train.options.constants import CHANGES, CONSTANTS, refuse_broken
from stages.train.options.settings import OptionSettings
from stages.train.settings import TrainSettings

ASKED: dict[str, dict[str, Any]] = {
    "norms of the language model": {"tune_norms": "llm"},
    "some norms of the language model": {"tune_norms": "fisher_topk"},
    "norms of the tower": {"tune_norms": "vision"},
    "lora": {"lora": {}},
    "levels": {"levels": {}},
    "moca": {"moca": True},
    "token weights": {"token_weights": "cal"},
    "logit correction": {"logit_correction": {"form": "caption"}},
    "two branches": {"logit_correction": {"form": "two_branch", "column": "concept"}},
    "average": {"average": {"ema": 0.9}},
}
USED: dict[str, dict[str, Any]] = {
    "text_logits": {"token_weights": "cal"},
    "text_states": {"inject_layer": 1},
    "vision_features": {"features": "cached"},
    "same_on_all_ranks": {"workers_per_run": 2},
    "inserted_places": {"connector": SimpleNamespace(kind="ep_alm", placement="replace")},
}
NONE = {"inject_layer": 0, "workers_per_run": 1, "features": None, "connector": None}
BROKEN = {
    ("norms of the language model", "text_logits"),
    ("norms of the language model", "text_states"),
    ("some norms of the language model", "text_logits"),
    ("some norms of the language model", "text_states"),
    ("norms of the tower", "vision_features"),
    ("lora", "text_logits"),
    ("lora", "text_states"),
    ("levels", "inserted_places"),
    ("moca", "inserted_places"),
    ("two branches", "same_on_all_ranks"),
}


def told(*settings: dict[str, Any]) -> Any:
    """Settings with these values; what is no option stands beside them as the trainer's own do."""
    values = {name: value for part in settings for name, value in part.items()}
    options = {name: value for name, value in values.items() if name in OptionSettings.model_fields}
    others = {name: value for name, value in values.items() if name not in options}
    made = OptionSettings.model_construct()
    fields = {**vars(made), **{name: getattr(parsed(name, value), name) for name, value in options.items()}}
    return SimpleNamespace(**{**fields, **NONE, **others})


def parsed(name: str, value: Any) -> OptionSettings:
    """One option alone, where nothing is cached that it could break."""

    class Alone(OptionSettings):
        features: str | None = None

    return Alone.model_validate({name: value})


def test_the_table_is_complete() -> None:
    assert set(ASKED) == set(CHANGES) and set(USED) == set(CONSTANTS)
    assert {(change, constant) for change in CHANGES for constant in CHANGES[change].breaks} == BROKEN


@pytest.mark.parametrize("constant", USED)
@pytest.mark.parametrize("change", ASKED)
def test_every_cell(change: str, constant: str) -> None:
    settings = told(ASKED[change], USED[constant])
    if (change, constant) not in BROKEN:
        refuse_broken(settings)
        return
    with pytest.raises(RecipeError) as refused:
        refuse_broken(settings)
    message = str(refused.value)
    assert f"`{CHANGES[change].asked(settings)}`" in message and f"`{CONSTANTS[constant].used(settings)}`" in message
    assert message.endswith(CONSTANTS[constant].instead)


@pytest.mark.parametrize("change", ASKED)
def test_an_option_alone_is_fine(change: str) -> None:
    refuse_broken(told(ASKED[change]))


def test_a_recipe_s_settings_are_refused(settings: Callable[..., TrainSettings]) -> None:
    with pytest.raises(RecipeError, match=r"`lora` changes .* `token_weights: cal` takes for constant; leave out"):
        settings(lora={}, token_weights="cal")
    with pytest.raises(RecipeError, match=r"`tune_norms: llm`.*`inject_layer: 1`"):
        settings(tune_norms="llm", inject_layer=1)
    settings(moca=True, token_weights="cal", inject_layer=1)
    for kind in ("cached", "online"):
        with pytest.raises(RecipeError, match=f"`tune_norms: vision`.*`features: {kind}`.*use `tune_norms: llm`"):
            settings(tune_norms="vision", features=kind)


def test_what_is_off_leaves_the_identity_as_it_was(settings: Callable[..., TrainSettings]) -> None:
    plain = settings().identity()
    assert not set(plain) & set(OptionSettings.model_fields)
    on = settings(moca=True, levels={"count": 4}, average={"last": 2, "every": 3}, tune_norms="fisher_topk")
    assert set(on.identity()) - set(plain) == {"moca", "levels", "average", "tune_norms"}
    assert on.located().identity() == on.identity()
    assert settings(moca=False, tune_norms="none").identity() == plain


def test_columns_that_training_asks_for(settings: Callable[..., TrainSettings]) -> None:
    assert settings().columns == ()
    assert settings(levels={}).columns == ("clip_score",)
    head = {"form": "concept_head", "column": "concept"}
    assert settings(levels={}, logit_correction=head).columns == ("clip_score", "source", "concept")
