"""Each connector against its formula, written out, or against another implementation of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import ContractError, CuveeError
from stages.train.connectors.contract import Grid, connector_of

VISION, LANGUAGE = 8, 6


def features(rows: int, count: int, seed: int = 0, width: int = VISION) -> torch.Tensor:
    return torch.randn(rows, count, width, generator=torch.Generator().manual_seed(seed))


def build(given: Any, grid: Grid, language: int = LANGUAGE) -> Any:
    return connector_of(given).build(VISION, language, 1, grid)


@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(5, 3), Grid(1, 7), Grid(2, 1)])
@pytest.mark.parametrize("pool", ["mean", "shuffle"])
def test_windows_are_pooled_as_by_hand(grid: Grid, pool: str) -> None:
    module = build({"kind": "pooled_mlp", "pool": pool}, grid)
    given = features(2, grid.cells)
    image = given.view(2, *grid, VISION)
    wanted = []
    for top in range(0, grid.rows, 2):
        for left in range(0, grid.columns, 2):
            window = image[:, top : top + 2, left : left + 2]
            rows = [min(top + i, grid.rows - 1) for i in range(2)]
            columns = [min(left + i, grid.columns - 1) for i in range(2)]
            laid = torch.stack([image[:, r, c] for r in rows for c in columns], dim=-1)  # channel by channel
            wanted.append(window.mean(dim=(1, 2)) if pool == "mean" else laid.flatten(1))
    tokens = module[1:](torch.stack(wanted, dim=1))
    assert torch.allclose(module(given), tokens, atol=1e-6)
    assert tokens.shape[1] == connector_of("pooled_mlp").tokens(grid)
    with pytest.raises(ContractError, match="features"):
        module(features(1, grid.cells + 1))


def test_the_perceiver_computes_what_idefics2_does() -> None:
    from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverResampler

    module = build({"kind": "perceiver", "latents": 5, "depth": 2, "heads": 2, "width": 12}, Grid(3, 3))
    shape = {"resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 2, "num_key_value_heads": 2}
    theirs = Idefics2PerceiverResampler(Idefics2PerceiverConfig(hidden_size=12, resampler_head_dim=6, **shape)).eval()
    names = {
        "latents_norm": "input_latents_norm", "context_norm": "input_context_norm",
        "mlp_norm": "post_attention_layernorm", "query": "self_attn.q_proj", "key": "self_attn.k_proj",
        "value": "self_attn.v_proj", "out": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }  # fmt: skip
    mine = dict(module.state_dict())
    copied = {"latents": mine["latents"], "norm.weight": mine["norm.weight"]}
    for layer in range(2):
        copied |= {f"layers.{layer}.{b}.weight": mine[f"layers.{layer}.{a}.weight"] for a, b in names.items()}
    theirs.load_state_dict(copied)
    given = features(3, 9)
    with torch.no_grad():
        out = theirs(module.into(given), torch.ones(3, 9, dtype=torch.long))
        read = out if isinstance(out, torch.Tensor) else out.last_hidden_state
        assert torch.allclose(module(given), module.out(read), atol=1e-5)


SMALL_QUERYING = {"queries": 3, "layers": 3, "width": 8, "heads": 2}


def test_a_qformer_reads_a_set_and_starts_from_a_saved_blip2(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    trained = build({"kind": "qformer", **SMALL_QUERYING}, Grid(2, 2))
    given = features(2, 4)
    assert torch.allclose(trained(given), trained(given[:, [2, 0, 3, 1]]), atol=1e-5)
    trained.eval()
    assert torch.equal(trained(given), trained(given))
    weights = {name: value for name, value in trained.state_dict().items() if name.startswith("qformer.")}
    with torch.no_grad():
        weights = {name: value + 0.1 for name, value in weights.items()}
    queries = torch.randn(1, 3, 8)
    save_file({**weights, "query_tokens": queries, "vision_model.x": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    settings = {"kind": "qformer", **SMALL_QUERYING, "pretrained": str(tmp_path)}
    started = build(settings, Grid(2, 2))
    assert torch.equal(started.queries, queries)
    assert all(torch.equal(started.state_dict()[name], value) for name, value in weights.items())
    assert torch.equal(started.out.weight, trained.out.weight), "what BLIP-2 lacks follows from the seed"
    connector = connector_of(settings)
    assert connector.identity()["pretrained"] != str(tmp_path) and connector.blank().pretrained is None
    with pytest.raises(CuveeError, match="shape"):
        connector_of(settings).build(VISION + 1, LANGUAGE, 1, Grid(2, 2))
    with pytest.raises(CuveeError, match="lacks"):
        build({**settings, "layers": 4}, Grid(2, 2))
    with pytest.raises(CuveeError, match="lacks"):
        build({**settings, "kind": "grounded_qformer"}, Grid(2, 2))


def test_grounded_queries_depend_on_the_prompt_that_is_there() -> None:
    module = build({"kind": "grounded_qformer", **SMALL_QUERYING}, Grid(2, 2))
    given, prompt = features(2, 4), features(2, 5, seed=1, width=LANGUAGE)
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    tokens = module(given, prompt, valid)
    changed = prompt.clone()
    changed[1, 3:] = 9.0
    assert torch.allclose(module(given, changed, valid), tokens, atol=1e-6), "padding is not read"
    changed[1, 2] = 9.0
    found = module(given, changed, valid)
    assert torch.allclose(found[0], tokens[0], atol=1e-6) and not torch.allclose(found[1], tokens[1], atol=1e-3)
    assert torch.allclose(module(given[1:], prompt[1:, :3], valid[1:, :3]), tokens[1:], atol=1e-5)
    none = module(given, prompt[:, :0], valid[:, :0])
    assert none.shape == tokens.shape and torch.isfinite(none).all()
    with pytest.raises(ContractError, match="given none"):
        module(given)
    last = module.qformer.encoder.layer[-1]
    assert not [*last.intermediate.parameters(), *last.output.parameters()], "its text half would be read by nothing"


def test_one_place_takes_the_last_layers_class_tokens() -> None:
    module = build({"kind": "ep_alm", "layers": 2, "soft_prompt": 3}, Grid(1, 6))
    given = features(2, 6)
    tokens = module(given)
    wanted = given[:, 4:] @ module.project.weight.T + module.project.bias
    assert torch.allclose(tokens[:, 3:], wanted, atol=1e-6)
    assert torch.equal(tokens[0, :3], module.soft) and torch.equal(tokens[0, :3], tokens[1, :3])
    bare = connector_of({"kind": "ep_alm", "soft_prompt": 0})
    assert bare.tokens(Grid(1, 1)) == 1 and build(bare, Grid(1, 1))(features(2, 1)).shape == (2, 1, LANGUAGE)
    assert connector_of("ep_alm").soft == 10 and connector_of("mlp").soft == 0
    assert connector_of("ep_alm").placement == "replace" and connector_of("ep_alm").features == "class_tokens"
