"""DeepInsert (arXiv:2504.19327): images enter a language model at layer l, and only text passes the layers below.

    h_t = E(text);  h_t = F_k(h_t) for k < l;  h = [h_t, P(image)];  h = F_k(h) for k >= l

The two halves are the model's own class around some of its own layers, so that rotary positions, windows and masks are
what the model makes of them. Below l places are counted without the images, from l on with them; each half has a
KV cache of its own. A model whose positions are added to its embeddings (GPT-2) gives them to text alone: above l
nothing is added, so what enters there has no position but what the tower gave it.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.agreement import agree, apart

if TYPE_CHECKING:
    import torch

LAYERS = ("layers", "h")
NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
"""What models call their layers, and the norm behind the last one."""


@dataclass(frozen=True)
class Halves:
    """A model's layers below l, and those from l on with the final norm; both called like the model inside."""

    below: Any
    """None: there are none."""
    above: Any
    layer: int

    def caches(self) -> tuple[Any, Any]:
        """Empty KV caches of both."""
        return (cache(self.below, 0) if self.below is not None else None), cache(self.above, self.layer)


def halves(model: Any, layer: int) -> Halves:
    """A causal language model split in two; parameters and hooks are shared with it.

    Raises:
        CuveeError: there is no such layer, or this class of models cannot be split.
    """
    import torch

    inside = model.base_model
    if layer == 0:
        return Halves(None, inside, 0)
    layers, norm = _name(model, LAYERS), _name(model, NORMS)
    count = len(getattr(inside, layers))
    if not 0 < layer < count:
        raise CuveeError(f"the language model has {count} layers, so images cannot enter at layer {layer}")
    below = _half(inside, {layers: getattr(inside, layers)[:layer], norm: torch.nn.Identity()}, range(layer))
    upper: dict[str, Any] = {layers: getattr(inside, layers)[layer:]}
    if hasattr(inside, "wpe"):
        upper["wpe"] = _no_positions()
    found = Halves(below, _half(inside, upper, range(layer, count)), layer)
    _refuse_another_model(model, found)
    return found


def _name(model: Any, names: tuple[str, ...]) -> str:
    inside = model.base_model
    positions = hasattr(inside, "rotary_emb") or hasattr(inside, "wpe")
    found = next((name for name in names if hasattr(inside, name)), None)
    if found is None or not positions:
        raise CuveeError(_refusal(model, f"it has no {' or '.join(names)}, or neither rotary nor added positions"))
    return found


def _half(inside: Any, modules: dict[str, Any], numbers: range) -> Any:
    half, config = copy.copy(inside), copy.copy(inside.config)
    half.__dict__["_modules"] = {**inside._modules, **modules}
    config.num_hidden_layers = len(numbers)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[number] for number in numbers]
    half.config = config
    return half


def _no_positions() -> "torch.nn.Module":
    import torch

    class NoPositions(torch.nn.Module):
        """Stands for position embeddings where they have been added already."""

        def forward(self, positions: torch.Tensor) -> torch.Tensor:
            return torch.zeros((), device=positions.device)

    return NoPositions()


def cache(half: Any, first: int) -> Any:
    """An empty KV cache for a half whose first layer is the model's layer number `first`."""
    from transformers import DynamicCache

    class Cache(DynamicCache):
        """Layers call themselves by their number in the whole model."""

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *others: Any, **named: Any) -> Any:
            return super().update(key_states, value_states, layer_idx - first, *others, **named)

    return Cache(config=half.config)


def _refuse_another_model(model: Any, found: Halves) -> None:
    """Text alone must leave both halves as it leaves the whole model."""
    import torch

    device = next(model.parameters()).device
    ids = torch.arange(5, device=device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        wanted = model.base_model(ids, use_cache=False).last_hidden_state
        state = model.get_input_embeddings()(ids)
        try:
            for half in (found.below, found.above):
                state = half(inputs_embeds=state, use_cache=False).last_hidden_state
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise CuveeError(_refusal(model, f"its halves do not run ({error})")) from error
    if not agree(state, wanted):
        off = f"{apart(state, wanted):.3g} of the largest one"
        raise CuveeError(_refusal(model, f"text passes its halves with states off by {off}"))


def _refusal(model: Any, why: str) -> str:
    return (
        f"images cannot enter language model {type(model).__name__} above layer 0: {why}; "
        "leave out `inject_layer`, or name a model of the Llama, Qwen, Mistral, Gemma or GPT-2 kind"
    )
