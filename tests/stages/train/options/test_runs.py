"""Every option in a whole run: what is trained, what stays frozen, saved, killed and gone on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import CuveeError, RecipeError
from stages.train.batches import Batches
from stages.train.connector import load_connector, save_connector
from stages.train.language_model import LanguageModel, one_thread
from stages.train.loop import Frozen, train_mixture
from stages.train.options.settings import OptionSettings
from stages.train.run import Run
from stages.train.samples import Corpus
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed
from tests.stages.train.generated import CLASSES, EOS, corpus, frozen, settings
from tests.stages.train.options.conftest import causal_model

HEAD = {"form": "concept_head", "column": "concept"}
OPTIONS: dict[str, dict[str, Any]] = {
    "cal": {"token_weights": "cal"},
    "caption": {"logit_correction": {"form": "caption", "beta": 1.0}},
    "concept_head": {"logit_correction": HEAD},
    "two_branch": {"logit_correction": {**HEAD, "form": "two_branch"}},
    "levels": {"levels": {"count": 4}},
    "moca": {"moca": True},
    "norms": {"tune_norms": "llm"},
    "fisher": {"tune_norms": {"fisher_topk": {"entries": 9, "samples": 6}}},
    "lora": {"lora": {"rank": 2}},
    "last": {"average": {"last": 3, "every": 2}},
    "ema": {"average": {"ema": 0.8}},
    "many": {
        "token_weights": "cal",
        "levels": {"count": 4},
        "moca": True,
        "logit_correction": HEAD,
        "average": {"ema": 0.8},
    },
    "deep": {"lora": {"rank": 2}, "tune_norms": "llm", "moca": True, "levels": {"count": 4}},
}
INSIDE = ("moca", "fisher", "deep", "cal")
"""Options that depend on how a language model is built."""
WEIGHTS = np.array([0.4, 0.6])
PARTS = {
    "concept_head": {"concept_head.weight", "concept_head.bias"},
    "two_branch": {f"concept_head.{name}" for name in ("weight", "bias", "biased_weight", "biased_bias")},
    "levels": {"levels.vectors"},
    "moca": {"moca.scale", "moca.shift"},
    "fisher": {"norms.values"},
}


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Frozen:
    model = causal_model(getattr(request, "param", "llama"))
    begin = 0 if model.config.model_type == "llama" else None
    return replace(frozen(["good", "more"], 24), language=LanguageModel(model, None, begin, EOS, "cpu"))


def scored(name: str) -> Corpus:
    made = corpus(name, range(24))
    scores = np.random.default_rng(len(name)).normal(0.3, 0.1, 24).tolist()
    concepts = tuple(f"class {i % CLASSES}" for i in range(24))
    return replace(made, columns={"clip_score": tuple(scores), "concept": concepts})


@pytest.fixture(scope="module")
def sources() -> dict[str, Corpus]:
    return {name: scored(name) for name in ("good", "more")}


def made(**changed: Any) -> TrainSettings:
    return settings(budget={"steps": 5}, batch=4, checkpoint_steps=2, **changed)


def started(option: str, world: Frozen, sources: dict[str, Corpus]) -> Run:
    return Run.start(made(**OPTIONS[option]), Batches(world, sources), "7/0", Fixed(WEIGHTS, 2))


def loss_of(run: Run, under: bool) -> float:
    drawn = [("good", 1), ("more", 4), ("good", 7)]
    with torch.no_grad():
        return float(run.sources.under(run.objective if under else None).losses(run.bridge, drawn).mean())


@pytest.mark.parametrize("option", ["caption", "moca", "norms", "fisher", "lora", "last", "ema", "concept_head"])
def test_evaluation_starts_where_it_does_without_the_option(
    option: str, world: Frozen, sources: dict[str, Corpus]
) -> None:
    plain = Run.start(made(), Batches(world, sources), "7/0", Fixed(WEIGHTS, 2))
    assert loss_of(started(option, world, sources), under=False) == loss_of(plain, under=False)


@pytest.mark.parametrize("option", ["moca", "norms", "fisher", "lora", "last", "ema", "levels"])
def test_what_only_adds_parts_leaves_the_loss_alone(option: str, world: Frozen, sources: dict[str, Corpus]) -> None:
    run = started(option, world, sources)
    values = run.sources.under(run.objective).losses(run.bridge, [("good", 1)])
    assert bool((values.weights == 1).all()) and values.penalty is None


def finished(option: str, world: Frozen, sources: dict[str, Corpus], checkpoint: Path, kill_after: int = 0) -> Any:
    """A whole run, or one that is killed and goes on."""

    def kill(step: int, loss: float) -> None:
        if step == kill_after:
            raise Killed

    asked = made(**OPTIONS[option])
    if kill_after:
        with pytest.raises(Killed):
            train_mixture(asked, world, sources, "7/0", WEIGHTS, checkpoint=checkpoint, on_step=kill)
    return train_mixture(asked, world, sources, "7/0", WEIGHTS, checkpoint=checkpoint)


@pytest.mark.parametrize(
    "world, option",
    [*(("llama", option) for option in OPTIONS), *(("gpt2", option) for option in INSIDE)],
    indirect=["world"],
)
def test_a_run_of_it(option: str, world: Frozen, sources: dict[str, Corpus], tmp_path: Path) -> None:
    """It trains what it names and nothing frozen; killed, it goes on bit for bit; loaded, it has the same losses."""
    model = world.language.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = {name: value.clone() for name, value in started(option, world, sources).bridge.state_dict().items()}
    whole = finished(option, world, sources, tmp_path / "checkpoint")

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(value.requires_grad or value.grad is not None for value in model.parameters())
    state, trained = whole.bridge.state_dict(), {name for name, _ in whole.bridge.named_parameters()}
    assert {name for name in trained if torch.equal(state[name], first[name])} == set()
    extra = {name.removeprefix("parts.") for name in trained if name.startswith("parts.")}
    assert extra == PARTS.get(option, extra) and bool(extra) == bool(made(**OPTIONS[option]).parts)

    resumed = finished(option, world, sources, tmp_path / "checkpoint", kill_after=1 + len(option) % 4)
    assert resumed.curve == whole.curve and list(resumed.bridge.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in resumed.bridge.state_dict().items())

    save_connector(whole.bridge, whole.card, tmp_path / "saved")
    models = {"vision": whole.card.vision, "language_model": whole.card.language_model}
    loaded, card = load_connector(tmp_path / "saved", **models, options=made(**OPTIONS[option]).recorded)
    batches, drawn = Batches(world, sources), [("good", 1), ("more", 4)]
    with torch.no_grad():
        said = batches.losses(loaded, drawn).values
        assert card == whole.card and torch.equal(said, batches.losses(whole.bridge, drawn).values)
    if whole.card.options:
        with pytest.raises(CuveeError, match="options ="):
            load_connector(tmp_path / "saved", **models, options={})


def test_a_checkpoint_of_another_option_is_refused(world: Frozen, sources: dict[str, Corpus], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def kill(step: int, loss: float) -> None:
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train_mixture(made(), world, sources, "7/0", WEIGHTS, checkpoint=checkpoint, on_step=kill)
    for option, found in (("cal", "schedule ="), ("ema", "schedule ="), ("moca", "options =")):
        with pytest.raises(CuveeError, match=found):
            train_mixture(made(**OPTIONS[option]), world, sources, "7/0", WEIGHTS, checkpoint=checkpoint)


def test_going_on_from_a_connector_takes_its_parts(world: Frozen, sources: dict[str, Corpus], tmp_path: Path) -> None:
    trained = train_mixture(made(**OPTIONS["moca"]), world, sources, "7/0", WEIGHTS)
    save_connector(trained.bridge, trained.card, tmp_path / "saved")
    on = Run.start(
        made(**OPTIONS["moca"], start=str(tmp_path / "saved")), Batches(world, sources), "8/0", Fixed(WEIGHTS, 2)
    )
    state = trained.bridge.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in on.bridge.state_dict().items())


@pytest.mark.parametrize(
    "option, columns, found",
    [
        ("levels", {}, "clip_score of every training sample, but 48 of 48"),
        ("concept_head", {}, r"column 'concept'.*24 of 24 have none"),
        ("concept_head", {"concept": ("one",) * 24}, r"found the concepts \['one'\], expected two"),
        ("caption", {"source": ("same",) * 24}, "one source alone"),
    ],
)
def test_samples_that_lack_what_an_option_asks_for_are_refused(
    option: str, columns: dict[str, Any], found: str, world: Frozen, sources: dict[str, Corpus]
) -> None:
    bare = {name: replace(one, columns=columns) for name, one in sources.items()}
    with pytest.raises(RecipeError, match=found):
        started(option, world, bare)


def test_concepts_by_centroids_are_those_of_the_nearest(
    world: Frozen, sources: dict[str, Corpus], tmp_path: Path
) -> None:
    directions = np.random.default_rng(1).normal(size=(CLASSES, world.visual.width))
    np.save(tmp_path / "centroids.npy", directions)
    by_centroid = made(logit_correction={"form": "concept_head", "centroids": str(tmp_path / "centroids.npy")})
    run = Run.start(by_centroid, Batches(world, sources), "7/0", Fixed(WEIGHTS, 2))
    assert run.objective is not None and run.objective.concepts is not None
    found = run.objective.concepts.concepts.concepts["good"]
    assert (found == np.arange(24) % CLASSES).mean() > 0.9
    np.save(tmp_path / "centroids.npy", directions[:, :3])
    with pytest.raises(RecipeError, match=r"shape \(6, 3\), expected \(k, 8\)"):
        Run.start(by_centroid, Batches(world, sources), "7/0", Fixed(WEIGHTS, 2))


def test_options_off_is_the_plain_objective(world: Frozen, sources: dict[str, Corpus]) -> None:
    run = Run.start(made(), Batches(world, sources), "7/0", Fixed(WEIGHTS, 2))
    assert run.objective is None and run.average is None and not len(run.bridge.parts)
    assert OptionSettings().chosen == {}


@pytest.mark.parametrize("option", ["cal", "levels", "concept_head", "caption"])
def test_text_without_an_image_has_its_loss_alone(option: str, world: Frozen, sources: dict[str, Corpus]) -> None:
    """No score, no concept; under CAL the lowest weight."""
    text = corpus("text", range(6))
    text = replace(text, images=("",) * 6, columns={"source": ("text",) * 6})
    run = Run.start(
        made(**OPTIONS[option]), Batches(world, {**sources, "text": text}), "0", Fixed(np.full(3, 1 / 3), 3)
    )
    losses = run.sources.under(run.objective).losses(run.bridge, [("text", 2), ("good", 1)])
    assert bool((losses.weights[losses.samples == 0] == 1).all()) and bool(losses.mean().isfinite())
    alone = run.sources.under(run.objective).losses(run.bridge, [("text", 2)])
    assert alone.penalty is None and torch.allclose(alone.values, losses.values[losses.samples == 0], atol=1e-5)


def test_centroids_are_known_by_their_bytes(tmp_path: Path) -> None:
    first, copied = tmp_path / "a.npy", tmp_path / "b.npy"
    for file in (first, copied):
        np.save(file, np.eye(3))
    recorded = [
        made(logit_correction={**HEAD, "column": None, "centroids": str(file)}).recorded for file in (first, copied)
    ]
    assert recorded[0] == recorded[1] and str(first) not in str(recorded[0])
    with pytest.raises(RecipeError, match="is no file"):
        made(logit_correction={**HEAD, "column": None, "centroids": "nowhere.npy"}).parts["logit_correction"].check()
