"""CAL, contrastive alignment (arXiv:2405.17871): label tokens weigh by how much the image changes their logit.

    D_t = o_t(y_t | image, y_<t) - o_t(y_t | y_<t)          raw logits of the label token
    w_t = mean over t-1, t, t+1 of clamp(D_t, lowest, highest)
    L   = sum_t w_t CE_t / sum_t w_t

The paper pools over the flattened batch, so that weights leak between samples and from the prompt; here the neighbours
are the same sample's labels, those that are there, and labels are never altered. The second term costs the paper a
second forward pass a step. Under a frozen language model it is a constant of the caption: `stages.train.text_logits`
computes it once. It keeps the positions of the full sequence, so that rotary and learned positions agree.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import torch


class Cal(BaseModel):
    """Bounds of the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cal"] = "cal"
    lowest: float = Field(1.0, gt=0)
    """In nats; 1 keeps a floor under tokens that the image says nothing about."""
    highest: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Cal":
        if self.lowest >= self.highest:
            raise ValueError(f"`lowest` {self.lowest} must be below `highest` {self.highest}")
        return self

    def weights(self, with_image: "torch.Tensor", text_only: "torch.Tensor", samples: "torch.Tensor") -> "torch.Tensor":
        """(L,) weights of labels, in [lowest, highest]; no gradient flows through them.

        Args:
            with_image: (L,) logit of each label's own token behind the image.
            text_only: (L,) the same without the image.
            samples: (L,) which sample a label belongs to; a sample's labels stand together, in their order.
        """
        clamped = (with_image.detach() - text_only).clamp(self.lowest, self.highest)
        return pooled(clamped, samples)


def pooled(values: "torch.Tensor", samples: "torch.Tensor") -> "torch.Tensor":
    """(L,) mean of each value and those beside it that belong to the same sample."""
    import torch

    linked = (samples[1:] == samples[:-1]).to(values.dtype)
    none = values.new_zeros(1)
    before = torch.cat([none, linked * values[:-1]])
    after = torch.cat([linked * values[1:], none])
    count = 1 + torch.cat([none, linked]) + torch.cat([linked, none])
    return (before + values + after) / count
