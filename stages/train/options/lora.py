"""LoRA (arXiv:2106.09685) on the frozen language model, through peft: W x becomes W x + (alpha / r) B A x.

A is drawn as peft draws it, from the run's seed, and B is 0, so that nothing changes at the start. A and B stand in
the bridge; peft's layers stand in the model's places during a forward pass alone, around the model's own layers.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from schemas.errors import RecipeError
from stages.train.options.option import Option, model_path, part, tensor_name

if TYPE_CHECKING:
    import torch

ADAPTER = "default"


class Lora(Option):
    """Low-rank additions to linear layers of the language model."""

    name: ClassVar[str] = "lora"

    rank: int = Field(8, gt=0)
    alpha: int = Field(16, gt=0)
    """The addition is scaled by alpha / rank."""
    targets: tuple[str, ...] | None = None
    """Names of the linear layers, e.g. [q_proj, v_proj]; default: every linear layer but the head."""

    def check(self) -> None:
        """Refuse where peft is not installed.

        Raises:
            RecipeError: how to install it.
        """
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise RecipeError("`lora` needs peft, which is not installed; run `pip install cuvee[lora]`") from error

    def start(self, model: "torch.nn.Module", seed: int) -> "torch.nn.Module":
        """The part that changes nothing yet: A and B of every layer, drawn on the CPU."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = self._layers(model)
        pairs = {f"{tensor_name(path)}/{side}": matrix(layer, side) for path, layer in layers.items() for side in "AB"}
        return part(self, pairs)

    @contextmanager
    def inside(self, part: Any, model: "torch.nn.Module", visual: "torch.Tensor | None") -> Iterator[None]:
        """Put peft's layers with the part's A and B around the model's own."""
        layers = part.__dict__.setdefault("around", {}).get(id(model)) or self._adopted(part, model)
        owners = {path: model.get_submodule(path.rpartition(".")[0]) for path in layers}
        own = {path: model.get_submodule(path) for path in layers}
        try:
            for path, layer in layers.items():
                layer.base_layer = own[path]
                setattr(owners[path], path.rpartition(".")[2], layer)
            yield
        finally:
            for path, layer in layers.items():
                setattr(owners[path], path.rpartition(".")[2], own[path])
                layer.base_layer = None  # else a copy of the bridge would copy the frozen model

    def _layers(self, model: "torch.nn.Module") -> dict[str, Any]:
        """peft's layers by the path of the layer they stand around, made on a copy that shares the model's tensors."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        twin, trained = copy.deepcopy(model, shared), [value for value in model.parameters() if value.requires_grad]
        targets = "all-linear" if self.targets is None else list(self.targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=targets,
            task_type="CAUSAL_LM",
            fan_in_fan_out=_transposed(model),
        )
        try:
            inject_adapter_in_model(config, twin)
        except ValueError as error:
            raise RecipeError(f"`lora.targets` {targets} do not fit {type(model).__name__}: {error}") from error
        for value in trained:  # peft froze them: other options' parts may stand in the model just now
            value.requires_grad_(True)
        found = {path: layer for path, layer in twin.named_modules() if isinstance(layer, LoraLayer)}
        _refuse_head(list(found), model)
        return found

    def _adopted(self, part: Any, model: "torch.nn.Module") -> dict[str, Any]:
        """Layers whose A and B are those of the part, remembered for this model."""
        layers = self._layers(model)
        tensors = {model_path(name): value for name, value in part.named_parameters()}
        for path, layer in layers.items():
            layer.lora_A[ADAPTER].weight = tensors[f"{path}.A"]
            layer.lora_B[ADAPTER].weight = tensors[f"{path}.B"]
        part.__dict__["around"][id(model)] = layers
        return layers


def _refuse_head(paths: list[str], model: Any) -> None:
    """Logits are computed apart from the layers, with the model's own head."""
    inner = f"{model.base_model_prefix}."
    if outside := [path for path in paths if not path.startswith(inner)]:
        raise RecipeError(f"`lora.targets` name {outside[0]!r}, which is the head; name layers inside {inner[:-1]!r}")


def matrix(layer: Any, side: str) -> "torch.Tensor":
    """A (r, in) or B (out, r) of one of peft's layers."""
    found: torch.Tensor = getattr(layer, f"lora_{side}")[ADAPTER].weight
    return found


def _transposed(model: "torch.nn.Module") -> bool:
    """Whether the model's linear layers hold (in, out) weights, as GPT-2's do."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())
