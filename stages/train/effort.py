"""How much of a GPU a run makes use of: model FLOPs over what the card could do in the time.

A frozen layer costs 2 N FLOPs per token forward and 2 N for the gradient of its input: 4 N, never 6 N, N its weights.
Below the layer where visual tokens go in, text alone passes, and forward alone. The head counts at label tokens. What
is computed twice to save memory counts once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.train.decoder_layers import decoder_layers

if TYPE_CHECKING:
    from stages.train.journal import Journal
    from stages.train.language_model import LanguageModel

DENSE_BF16 = {"H200": 989e12, "H100": 989e12, "GH200": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12}
"""FLOPs per second of dense bf16 products by the maker's data sheets; a card that is not here gets no share."""


@dataclass(frozen=True)
class Effort:
    """The weights that tokens pass, and the card."""

    lower: int
    """Weights of the layers below the one where visual tokens go in."""
    upper: int
    """Weights of the other layers."""
    head: int
    """Weights from hidden states to logits."""
    peak: float | None
    """FLOPs per second of the card; None: unknown, or no card."""
    on_gpu: bool

    @classmethod
    def of(cls, language: "LanguageModel", inject_layer: int, precision: str) -> "Effort":
        """Of training before one language model."""
        layers = [sum(weight.numel() for weight in layer.parameters()) for layer in decoder_layers(language.model)]
        head = language.model.get_output_embeddings().weight.numel()
        return cls(sum(layers[:inject_layer]), sum(layers[inject_layer:]), head, *_card(language.device, precision))

    def flops(self, visual: float, text: float, label: float) -> float:
        """Of training on so many tokens."""
        return 4 * self.upper * (visual + text) + 2 * self.lower * text + 4 * self.head * label

    def of_window(self, journal: "Journal") -> dict[str, Any]:
        """What belongs beside the rates of the open window; nothing on a CPU."""
        if not self.on_gpu:
            return {}
        import torch

        visual, text, label, _ = journal.counts
        found: dict[str, Any] = {"peak_bytes": torch.cuda.max_memory_allocated()}
        if self.peak is not None:
            found["mfu"] = self.flops(visual, text, label) / max(journal.seconds, 1e-9) / self.peak
        return found


def _card(device: str, precision: str) -> tuple[float | None, bool]:
    if not device.startswith("cuda"):
        return None, False
    import torch

    name = torch.cuda.get_device_name(device)
    known = next((peak for part, peak in DENSE_BF16.items() if part in name), None)
    return (known if precision == "bf16" else None), True
