"""What a layout gives a language model, against one caption at a time through transformers' own forward pass."""

from typing import Any

import pytest

from schemas.errors import CuveeError
from stages.train.bridge import Bridge, Shown
from stages.train.layout import Layout, Said, lay_out
from tests.stages.train.language_models import BOS, EOS, FAMILIES, LAYERS, SPLIT, WIDTH, causal, language

VISUAL = 3
SAID = [
    Said([10, 11, 12, 13, 14, 15, 16, 17, 18, 19, EOS], 0, between=(BOS,)),
    Said([20], 1, before=(7, 8), between=(9,)),
    Said([30, 31, 32], 0, between=(BOS,)),
    Said([40, 41, 42, EOS], None, between=(BOS,)),
    Said([50, 51, 52, 53, 54, 55], 1, before=(7, 8), between=(9,)),
]
TOGETHER = [{"pack": 24}, {"share": True}, {"pack": 40, "share": True}]


def visual() -> Any:
    import torch

    return torch.randn(2, VISUAL, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()


def losses(family: str, layout: Layout, tokens: Any, **shown: Any) -> Any:
    import torch

    logits = language(family).label_logits(layout, Shown(tokens, **shown), None)
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(layout.labels), reduction="none")


def alone(family: str, tokens: Any) -> list[float]:
    """By transformers' own forward pass and loss, one caption after the other."""
    import torch

    model, found = causal(family), []
    for said in SAID:
        embed = model.get_input_embeddings()
        before, between = (
            embed(torch.tensor([list(part)], dtype=torch.long)) for part in (said.before, [*said.between, *said.ids])
        )
        image = tokens[said.image : said.image + 1] if said.image is not None else tokens[:1, :0]
        logits = model(inputs_embeds=torch.cat([before, image, between], dim=1), use_cache=False).logits[0]
        spoken = logits.float().log_softmax(dim=-1)[-len(said.ids) - 1 : -1]
        found += [-float(row[label]) for row, label in zip(spoken, said.ids, strict=True)]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_the_model_s_own_forward_pass(family: str) -> None:
    import torch

    tokens = visual()
    with torch.no_grad():
        assert losses(family, lay_out(SAID, VISUAL), tokens).tolist() == pytest.approx(alone(family, tokens), rel=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bloom"])
def test_rows_that_are_shared_change_no_loss_and_no_gradient(family: str) -> None:
    import torch

    tokens = visual()
    wanted = losses(family, lay_out(SAID, VISUAL), tokens)
    gradient = torch.autograd.grad(wanted.mean(), tokens)[0]
    for how in TOGETHER:
        found = losses(family, lay_out(SAID, VISUAL, **how), tokens)
        assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5, abs=1e-5), how
        assert torch.allclose(torch.autograd.grad(found.mean(), tokens)[0], gradient, rtol=1e-3, atol=1e-6), how


def test_a_model_that_goes_by_more_than_masks_shares_no_rows() -> None:
    with pytest.raises(CuveeError, match="BloomForCausalLM goes by more than masks"):
        losses("bloom", lay_out(SAID, VISUAL, pack=40), visual())


@pytest.mark.parametrize("family", SPLIT)
@pytest.mark.parametrize("layer", [1, LAYERS - 1])
def test_layers_below_see_text_alone(family: str, layer: int) -> None:
    """Against layers run by hand: text first, then images put in, one caption at a time."""
    import torch

    from stages.train.injection import halves

    tokens, split, model = visual(), halves(causal(family), layer), causal(family)
    wanted: list[float] = []
    for said in SAID:
        text = torch.tensor([[*said.before, *said.between, *said.ids[:-1]]])
        states = split.below(inputs_embeds=model.get_input_embeddings()(text), use_cache=False).last_hidden_state
        image = tokens[said.image : said.image + 1] if said.image is not None else tokens[:1, :0]
        states = torch.cat([states[:, : len(said.before)], image, states[:, len(said.before) :]], dim=1)
        states = split.above(inputs_embeds=states, use_cache=False).last_hidden_state
        spoken = language(family).head(inputs_embeds=states).logits[0].float().log_softmax(dim=-1)[-len(said.ids) :]
        wanted += [-float(row[label].detach()) for row, label in zip(spoken, said.ids, strict=True)]
    for how in ({}, *TOGETHER):
        found = losses(family, lay_out(SAID, VISUAL, **how), tokens, layer=layer)
        assert found.tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-5), how
    plain = alone(family, tokens.detach())
    assert max(abs(a - b) for a, b in zip(plain, wanted, strict=True)) > 0.01, "it matters where images enter"


@pytest.mark.parametrize("family", ["granite", "opt", "bloom"])
def test_other_models_cannot_be_split(family: str) -> None:
    with pytest.raises(CuveeError, match="cannot enter language model"):
        losses(family, lay_out(SAID, VISUAL), visual(), layer=1)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(CuveeError, match="4 layers, so images cannot enter at layer 4"):
        losses("llama", lay_out(SAID, VISUAL), visual(), layer=LAYERS)


def test_layers_below_keep_no_graph() -> None:
    """What the first layers compute is not kept for the backward pass: no tensor saved there needs a gradient."""
    import torch

    seen: dict[int, bool] = {}
    losses("llama", lay_out(SAID, VISUAL), visual(), layer=2)  # a way through the model is tried when it is first used
    hooks = [
        layer.register_forward_hook(lambda _, __, out, number=number: seen.__setitem__(number, out.requires_grad))
        for number, layer in enumerate(causal("llama").model.layers)
    ]
    loss = losses("llama", lay_out(SAID, VISUAL), visual(), layer=2)
    for hook in hooks:
        hook.remove()
    assert seen == {0: False, 1: False, 2: True, 3: True} and loss.requires_grad
    torch.autograd.backward(loss.mean())


def greedy(family: str, tokens: Any, layer: int, most: int) -> list[list[int]]:
    """By running everything again for each token."""
    import torch

    found: list[list[int]] = [[] for _ in tokens]
    for number, ids in enumerate(found):
        while len(ids) < most:
            layout = lay_out([Said([*ids, 0], 0, between=(BOS,))], VISUAL)
            with torch.no_grad():
                shown = Shown(tokens[number : number + 1], layer)
                best = int(language(family).label_logits(layout, shown, None)[-1].argmax())
            if best == EOS:
                break
            ids.append(best)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma3"])
@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1])
def test_captions_with_caches_are_those_without(family: str, layer: int) -> None:
    import torch

    tokens = visual().detach()
    with torch.no_grad():
        found = language(family).generate(Shown(tokens, layer), 12, None)
    assert found == greedy(family, tokens, layer, 12) and max(map(len, found)) == 12
    assert found[0] != found[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_at_layer_0_are_transformers_own(family: str) -> None:
    import torch

    model, tokens = causal(family), visual().detach()
    begin = model.get_input_embeddings()(torch.full((2, 1), BOS))
    with torch.no_grad():
        wanted = model.generate(
            inputs_embeds=torch.cat([tokens, begin], dim=1), do_sample=False, max_new_tokens=12, pad_token_id=0
        ).tolist()
        found = language(family).generate(Shown(tokens), 12, None)
    assert found == [row[: row.index(EOS)] if EOS in row else row for row in wanted]


def test_one_place_is_set_anew_at_the_last_layers() -> None:
    """eP-ALM, against hidden states overwritten by hand in the full model, where text does not see the place before."""
    import torch

    model, soft, values = causal("llama"), 2, 3
    tokens = torch.randn(1, soft + values, WIDTH, generator=torch.Generator().manual_seed(2))
    said = [Said([10, 11, 12], 0, between=(BOS,))]
    layout = lay_out(said, soft + 1)
    with torch.no_grad():
        found = losses("llama", layout, tokens, placement="replace", soft=soft)
        text = model.get_input_embeddings()(torch.tensor([[BOS, 10, 11]]))
        states = model.model(
            inputs_embeds=torch.cat([tokens[:, :soft], text], dim=1), output_hidden_states=True
        ).hidden_states[LAYERS - values]
        states = torch.cat([states[:, :soft], tokens[:, soft : soft + 1], states[:, soft:]], dim=1)
        rotary = model.model.rotary_emb(states, torch.arange(states.shape[1])[None])
        for number, layer in enumerate(model.model.layers[LAYERS - values :]):
            states[:, soft] = tokens[:, soft + number]
            states = layer(states, position_embeddings=rotary, attention_mask=None)
        spoken = model.lm_head(model.model.norm(states))[0, soft + 1 :].log_softmax(dim=-1)
    wanted = [-float(row[label]) for row, label in zip(spoken, [10, 11, 12], strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(CuveeError, match="anew at the last 5 layers"):
        losses("llama", lay_out(said, 1), torch.zeros(1, 5, WIDTH), placement="replace")


@pytest.mark.parametrize("layer", [0, 2])
def test_layers_that_are_computed_again_give_the_same_gradient_and_keep_less(layer: int) -> None:
    """Also where an option acts inside the layers: its parameters stand there in the second pass as in the first."""
    import contextlib
    from dataclasses import replace

    import torch

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(1.3))

        @contextlib.contextmanager
        def inside(self, model: Any, places: Any) -> Any:
            norms = [block.input_layernorm for block in model.model.layers]
            hooks = [norm.register_forward_hook(lambda _, __, out: out * self.gain) for norm in norms]
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()

    tokens, layout, found = visual(), lay_out(SAID, VISUAL, pack=40), []
    bridge = Bridge(torch.nn.Identity(), {"scale": Scale()})
    for recompute in (False, True):
        model, kept = replace(language("llama"), recompute=recompute), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            logits = model.label_logits(layout, Shown(tokens, layer), bridge)
        gradients = torch.autograd.grad(logits.logsumexp(dim=-1).mean(), [tokens, *bridge.parameters()])
        found.append((sum(kept), gradients))
    assert found[1][0] < 0.5 * found[0][0]
    for once, again in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(once, again, rtol=1e-4, atol=1e-7) and once.abs().max() > 0
    assert "forward" not in vars(causal("llama").model.layers[0]), "the shared model is as it was"


@pytest.mark.parametrize("family", ["opt", "bloom"])
def test_layers_of_models_that_cannot_be_split_are_computed_again(family: str) -> None:
    from dataclasses import replace

    import torch

    tokens, layout, found = visual(), lay_out(SAID, VISUAL), []
    for recompute in (False, True):
        logits = replace(language(family), recompute=recompute).label_logits(layout, Shown(tokens), None)
        found.append(torch.autograd.grad(logits.logsumexp(dim=-1).mean(), tokens)[0])
    assert torch.allclose(*found, rtol=1e-4, atol=1e-7)
