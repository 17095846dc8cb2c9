"""What every connector promises, asked of each kind; and figures by which the known ones can be told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from schemas.errors import ContractError, CuveeError
from stages.kinds import kinds
from stages.train.connector import ConnectorCard, load_alike, load_connector, save_connector
from stages.train.connectors.contract import Connector, Grid, connector_of

VISION, LANGUAGE, GRID = 12, 20, Grid(5, 3)
SMALL: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"hidden": 7},
    "pooled_mlp": {},
    "perceiver": {"latents": 4, "depth": 2, "heads": 2},
    "qformer": {"queries": 4, "layers": 3, "width": 8, "heads": 2},
    "grounded_qformer": {"queries": 4, "layers": 3, "width": 8, "heads": 2},
    "ep_alm": {"layers": 5, "soft_prompt": 3},
    "moe_mlp": {"experts": 3},
}
TOKENS = {"linear": 15, "mlp": 15, "pooled_mlp": 6, "ep_alm": 8, "moe_mlp": 15}


def made(kind: str, **changed: Any) -> Connector:
    found: Connector = connector_of({"kind": kind, **SMALL[kind], **changed}).resolved(None, VISION, LANGUAGE)
    return found


def module_of(connector: Connector, seed: int = 3) -> torch.nn.Module:
    return connector.build(VISION, LANGUAGE, seed, GRID)


def asked(connector: Connector, rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, GRID.cells, VISION, generator=generator)
    if not connector.reads_prompt:
        return {"features": features}
    valid = torch.arange(4)[None].expand(rows, 4) < 3
    return {"features": features, "prompt": torch.randn(rows, 4, LANGUAGE, generator=generator), "valid": valid}


def answer(module: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    features, *others = given.values()
    found: torch.Tensor = module(features, *others)
    return found


def test_every_kind_is_asked_here() -> None:
    assert set(SMALL) == set(kinds(Connector))


@pytest.mark.parametrize("kind", SMALL)
def test_tokens_are_as_many_as_said_in_fp32_and_row_by_row(kind: str) -> None:
    connector = made(kind)
    module, given = module_of(connector), asked(connector, 3)
    tokens = answer(module, given)
    assert connector.tokens(GRID) == TOKENS.get(kind, 4)
    assert tokens.shape == (3, connector.tokens(GRID), LANGUAGE) and tokens.dtype == torch.float32
    alone = answer(module, {name: value[1:2] for name, value in given.items()})
    assert torch.allclose(alone, tokens[1:2], atol=1e-6), "an image's tokens do not depend on its batch"
    none = answer(module, {name: value[:0] for name, value in given.items()})
    assert none.shape == (0, connector.tokens(GRID), LANGUAGE)


@pytest.mark.parametrize("kind", SMALL)
def test_weights_follow_from_the_seed_and_every_one_gets_a_gradient(kind: str) -> None:
    connector = made(kind)
    before = torch.get_rng_state()
    module, twin, other = module_of(connector), module_of(connector), module_of(connector, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    tokens = answer(module, asked(connector, 6))
    torch.autograd.backward((tokens * torch.randn_like(tokens)).sum())
    untouched = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    # A constant added to every key shifts all scores of a query alike, which a softmax does not see.
    assert [name for name in untouched if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("kind", SMALL)
def test_a_saved_one_comes_back_and_only_where_it_belongs(kind: str, tmp_path: Path) -> None:
    connector = made(kind)
    places: dict[str, Any] = {"vision": "tower", "language_model": "lm", "inject_layer": 1, "options": {}}
    card = ConnectorCard(
        connector=connector, vision_width=VISION, language_width=LANGUAGE, visual_tokens=15, grid=GRID, init_seed=3,
        **places,
    )  # fmt: skip
    module = card.bridge()
    with torch.no_grad():
        for value in module.parameters():
            value += 0.01
    save_connector(module, card, tmp_path / "saved")
    loaded, found = load_connector(tmp_path / "saved", **places)
    assert found == card and type(found.connector) is type(connector)
    given = asked(connector, 2)
    assert torch.equal(answer(loaded.connector, given), answer(module.connector, given))
    assert (loaded.layer, loaded.placement, loaded.soft) == (1, connector.placement, connector.soft)
    assert loaded.reads_prompt == connector.reads_prompt
    for changed, said in (
        ({"vision": "other"}, "vision = 'tower'"),
        ({"language_model": "other"}, "language_model = 'lm'"),
        ({"vision_layer": -2}, "vision_layer = -1, but this run has -2"),
        ({"inject_layer": 2}, "inject_layer = 1, but this run has 2"),
        ({"options": {"tune_norms": "llm"}}, r"options = \{\}, but this run has \{'tune_norms': 'llm'\}"),
    ):
        with pytest.raises(CuveeError, match=said):
            load_connector(tmp_path / "saved", **{**places, **changed})
    if connector.grid_bound:
        with pytest.raises(CuveeError, match="grid"):
            load_connector(tmp_path / "saved", **places, grid=Grid(3, 5))
    another = card.model_copy(update={"connector": made("mlp" if kind == "linear" else "linear")})
    with pytest.raises(CuveeError, match=f"holds connector '{kind}'"):
        load_alike(tmp_path / "saved", another)


@pytest.mark.parametrize(
    ("kind", "vision", "millions"),
    [
        ("linear", 1024, 4.2), ("mlp", 1024, 20.98), ("pooled_mlp", 1024, 20.98), ("ep_alm", 1024, 4.24),
        ("moe_mlp", 1024, 83.9), ("perceiver", 1024, 55.66), ("qformer", 1408, 108.2),
        ("grounded_qformer", 1408, 163.3),
    ],
)  # fmt: skip
def test_parameters_are_as_many_as_published(kind: str, vision: int, millions: float) -> None:
    """LLaVA's linear layer and MLP; the image half of BLIP-2's Q-Former is 105.1 million (of 188 with text half, words
    and heads) and its projection 3.2. The others by their formulas: the perceiver is 3 x 16 x 1024^2, and what goes in
    and out; four experts are four MLPs; the text half in 11 layers adds 51.9 and the prompt's projection 3.1.
    """
    with torch.device("meta"):
        module = connector_of(kind).build(vision, 4096, 0, Grid(24, 24))
    count = sum(value.numel() for value in module.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.005)


def test_settings_are_named_or_refused() -> None:
    assert connector_of("perceiver").latents == 64 and connector_of("perceiver").depth == 3
    assert connector_of("qformer").queries == 32 and connector_of("ep_alm").layers == 6
    assert connector_of("pooled_mlp").tokens(Grid(24, 24)) == 144
    for wrong, said in (
        ("perceive", "expected one of ep_alm, grounded_qformer, linear"),
        ({"kind": "mlp", "latents": 3}, "latents"),
        ({"kind": "perceiver", "width": 10, "heads": 4}, "not a multiple"),
        ({"kind": "qformer", "width": 10}, "not a multiple"),
        ({"kind": "moe_mlp", "top_k": 2, "experts": 1}, "more than the 1"),
        ({"kind": "moe_mlp", "router": "reference"}, "name both"),
        ({"kind": "moe_mlp", "router": "reference", "sources": ["a", "b"], "experts": 1}, "need more"),
    ):
        with pytest.raises((ValueError, ValidationError), match=said):
            connector_of(wrong)


def test_the_contract_is_told_when_it_is_broken() -> None:
    class Nothing(Connector):
        kind: str

    with pytest.raises(ContractError, match="tokens"):
        Nothing(kind="nothing").tokens(GRID)
    with pytest.raises(ContractError, match="build"):
        Nothing(kind="nothing").build(1, 1, 0, GRID)
