"""What every part of the bridge that acts inside the language model promises."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch.utils.checkpoint import checkpoint

from schemas.errors import ContractError, RecipeError
from stages.train.decoder_layers import decoder_layers
from stages.train.options.fisher_norms import FisherNorms, fisher_information, largest
from stages.train.options.lora import Lora
from stages.train.options.moca import Moca
from stages.train.options.option import part
from stages.train.options.tuned_norms import TunedNorms, norm_parameters

NAMES = ("moca", "norms", "fisher", "lora")


def start(name: str, model: Any) -> Any:
    """A part before its first step."""
    if name == "moca":
        return Moca().start(model)
    if name == "norms":
        return TunedNorms().start(model)
    if name == "lora":
        return Lora(rank=2).start(model, seed=3)
    count = sum(value.numel() for value in norm_parameters(model).values())
    return FisherNorms(entries=7).start(model, torch.arange(count) % 50)


def moved(name: str, model: Any) -> Any:
    """A part that has been trained, as far as the language model can tell."""
    made = start(name, model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in made.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_at_the_start(name: str, model: Any, ids: torch.Tensor, visual: torch.Tensor) -> None:
    plain = model(ids).logits
    with start(name, model).inside(model, visual):
        assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize("name", NAMES)
def test_the_language_model_is_left_as_it_was(name: str, model: Any, ids: torch.Tensor, visual: torch.Tensor) -> None:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    objects = {key: id(value) for key, value in model.named_parameters()}
    plain, made = model(ids).logits, moved(name, model)
    with pytest.raises(ZeroDivisionError), made.inside(model, visual):
        assert not torch.equal(model(ids).logits, plain)
        model(ids).logits.sum().backward()
        raise ZeroDivisionError
    assert torch.equal(model(ids).logits, plain)
    assert {key: id(value) for key, value in model.named_parameters()} == objects
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(value.requires_grad or value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_the_part_gets_a_gradient(
    name: str, model: Any, ids: torch.Tensor, visual: torch.Tensor
) -> None:
    made = moved(name, model)
    with made.inside(model, visual):
        model(ids).logits.square().sum().backward()
    assert list(made.parameters())
    assert [key for key, value in made.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_says_the_same(name: str, model: Any, ids: torch.Tensor, visual: torch.Tensor) -> None:
    made, again = moved(name, model), start(name, model)
    again.load_state_dict(load(save({key: value.contiguous() for key, value in made.state_dict().items()})))
    with made.inside(model, visual):
        said = model(ids).logits
    with again.inside(model, visual):
        assert torch.equal(model(ids).logits, said)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_is_computed_again_in_the_backward_pass_sees_the_part(
    name: str, model: Any, ids: torch.Tensor, visual: torch.Tensor
) -> None:
    made = moved(name, model)

    def gradients(again: bool, open_still: bool = False) -> list[torch.Tensor]:
        made.zero_grad()
        with made.inside(model, visual):
            contexts = (nullcontext(), made.inside(model, visual))
            out = (
                checkpoint(lambda x: model(x).logits, ids, use_reentrant=False, context_fn=lambda: contexts)
                if again
                else model(ids).logits
            )
            loss = out.square().sum()
            if open_still:
                loss.backward()
        if not open_still:
            loss.backward()
        return [value.grad.clone() for value in made.parameters()]

    kept = gradients(again=False)
    assert all(map(torch.equal, gradients(again=True), kept))
    assert all(map(torch.equal, gradients(again=True, open_still=True), kept))


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_the_part_copies_no_frozen_tensor(name: str, model: Any, ids: torch.Tensor) -> None:
    made = moved(name, model)
    with made.inside(model, None):
        model(ids)
    memory: dict[int, Any] = {}
    copy.deepcopy(made, memory)
    assert not {id(value) for value in model.parameters()} & set(memory)


def test_moca_is_a_scale_and_a_shift_of_visual_places_after_each_layer(
    model: Any, ids: torch.Tensor, visual: torch.Tensor
) -> None:
    made, seen, inputs = moved("moca", model), [], []
    layers = decoder_layers(model)
    with made.inside(model, visual):
        for layer in layers:  # behind the part's own hooks
            inputs.append(layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach())))
        model(ids)
    for hook in inputs:
        hook.remove()
    said = layers[0](seen[0], position_embeddings=rotary(model, seen[0]))
    expected = torch.where(visual[..., None], made.scale[0] * said + made.shift[0], said)
    assert torch.equal(seen[1], expected)


def rotary(model: Any, hidden: torch.Tensor) -> Any:
    """The positions' embeddings, where the model turns by them in every layer."""
    if not hasattr(model.base_model, "rotary_emb"):
        return None
    return model.base_model.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])


def test_moca_above_an_injection_layer_leaves_the_layers_below_alone(model: Any) -> None:
    assert Moca().start(model, inject_layer=3).scale.shape == (1, 64)


def test_lora_is_peft_s(model: Any, ids: torch.Tensor) -> None:
    made = moved("lora", model)
    name = next(key for key, _ in made.named_parameters() if key.endswith("/A")).removesuffix("/A")
    tensors = dict(made.named_parameters())
    owner = model.get_submodule(name.replace("/", "."))
    x = torch.randn(3, tensors[f"{name}/A"].shape[1])
    with made.inside(model, None):
        said = model.get_submodule(name.replace("/", "."))(x)
    expected = owner(x) + 16 / 2 * x @ tensors[f"{name}/A"].T @ tensors[f"{name}/B"].T
    assert torch.allclose(said, expected, atol=1e-5)


def test_lora_starts_from_the_seed_and_leaves_torch_s_alone(model: Any) -> None:
    before = torch.get_rng_state()
    first, again, other = (Lora(rank=2).start(model, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    states = [torch.cat([value.flatten() for value in one.parameters()]) for one in (first, again, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_lora_refuses_layers_that_are_not_there(model: Any) -> None:
    with pytest.raises(RecipeError, match=r"lora\.targets.*nowhere"):
        Lora(targets=("nowhere",)).start(model, 0)


def test_fisher_information_is_the_mean_square_of_one_gradient_a_sample(model: Any, ids: torch.Tensor) -> None:
    def log_likelihood(row: int) -> torch.Tensor:
        spoken = model(ids[row : row + 1]).logits.log_softmax(dim=-1)
        return spoken[0, :-1].gather(-1, ids[row, 1:, None]).sum()

    found = fisher_information(model, log_likelihood, [0, 1])
    everything = TunedNorms().start(model)
    expected = 0.0
    for row in (0, 1):
        everything.zero_grad()
        with everything.inside(model):
            log_likelihood(row).backward()
        expected += torch.cat([value.grad.flatten() for value in everything.parameters()]).double().square() / 2
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-12)
    made = FisherNorms(entries=5).start(model, found)
    assert set(made.chosen.tolist()) == set(found.topk(5).indices.tolist())
    flat = torch.cat([value.flatten() for value in norm_parameters(model).values()])
    assert torch.equal(made.values, flat[made.chosen])


def test_the_norms_of_an_image_tower_are_tuned_alike(vision_folder: Path) -> None:
    """The tower's own pass, with the part's values in it, and gradients for these alone."""
    import open_clip

    tower = open_clip.create_model(f"local-dir:{vision_folder}").visual.train(False).requires_grad_(False)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, made = tower(pixels), TunedNorms(of="vision").start(tower)
    with made.inside(tower):
        assert torch.equal(tower(pixels), plain)
        tower(pixels).square().sum().backward()
    assert len(list(made.parameters())) == 2 * sum(isinstance(one, torch.nn.LayerNorm) for one in tower.modules())
    assert all(value.grad is not None for value in made.parameters())
    assert torch.equal(tower(pixels), plain) and not any(value.requires_grad for value in tower.parameters())


def test_of_equal_values_the_first_are_chosen() -> None:
    assert largest(torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]


def test_names_of_tensors_have_no_dots() -> None:
    with pytest.raises(ContractError, match="no dots"):
        part(Moca(), {"a.b": torch.zeros(1)})
