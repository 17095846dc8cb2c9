"""MoCa, modality calibration (arXiv:2410.07167, section 4): visual tokens are rescaled and shifted after every layer.

After layer k of the language model, at the places of visual tokens only,

    psi_k(h) = u_k * h + v_k,      u_k = 1, v_k = 0 at the start,

with u_k, v_k (d,): 2 K d trained numbers for K layers. At the start nothing changes, and text places never do. Layers
below an injection layer have no visual tokens and get no calibration.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from stages.train.decoder_layers import decoder_layers
from stages.train.options.option import Option, part

if TYPE_CHECKING:
    import torch


class Moca(Option):
    """Scale `scale` (K, d) and shift `shift` (K, d) of the last K layers of the language model."""

    name: ClassVar[str] = "moca"

    def start(self, model: "torch.nn.Module", inject_layer: int = 0) -> "torch.nn.Module":
        """The part that changes nothing yet."""
        import torch

        layers = len(decoder_layers(model)) - inject_layer
        width: int = model.config.hidden_size  # type: ignore[union-attr,assignment]
        return part(self, {"scale": torch.ones(layers, width), "shift": torch.zeros(layers, width)})

    @contextmanager
    def inside(self, part: Any, model: "torch.nn.Module", visual: "torch.Tensor | None") -> Iterator[None]:
        """Calibrate the output of the last K layers at visual places."""
        if visual is None:
            yield
            return
        layers = decoder_layers(model)[-len(part.scale) :]
        at = visual[..., None]
        hooks = [
            layer.register_forward_hook(_calibrate(scale, shift, at))
            for layer, scale, shift in zip(layers, part.scale, part.shift, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def calibrated(
    hidden: "torch.Tensor", scale: "torch.Tensor", shift: "torch.Tensor", visual: "torch.Tensor"
) -> "torch.Tensor":
    """(R, T, d) scale * hidden + shift where `visual` (R, T, 1), else hidden."""
    import torch

    return torch.where(visual, (scale * hidden + shift).to(hidden.dtype), hidden)


def _calibrate(scale: "torch.Tensor", shift: "torch.Tensor", visual: "torch.Tensor") -> Any:
    def hook(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (calibrated(output[0], scale, shift, visual), *output[1:])
        return calibrated(output, scale, shift, visual)

    return hook
