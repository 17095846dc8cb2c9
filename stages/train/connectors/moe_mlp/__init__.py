"""A mixture of expert MLPs, routed by visual token or by image, and the routers of the MoE testbed (arXiv:2604.07030).

    g = softmax(W LayerNorm(x)),   y = sum over the k largest g_i of g_i MLP_i(x),   k = 1 or 2

`route: image` decides once for an image, by the mean of its features. The balance loss is E sum_i f_i p_i, f_i the
share of choices that fell on expert i and p_i the mean of g_i (1 where both are even). Over what f is counted is its
`scope` (arXiv:2501.11873): `sequence`, one image; `micro_batch`, one forward; `global_batch`, all forwards and all
workers of an optimizer step, which lets an expert have a domain to itself as long as the whole batch is spread.

Instead of `learned`, the router may be one of three to compare with, whose gates are 1/k: `reference`, expert by the
sample's source, k experts each; `random`, by a hash of the feature; `dense`, one MLP `k` times as wide, which has as
many active parameters.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from stages.train.connectors.contract import Grid, TwoLayers
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class MoeMlp(TwoLayers):
    """As many tokens as an MLP, `experts` times its parameters, `top_k` times its work."""

    kind: Literal["moe_mlp"] = "moe_mlp"
    experts: int = Field(default=4, ge=1)
    top_k: int = Field(default=1, ge=1, le=2)
    """Experts that answer for a token."""
    route: Literal["token", "image"] = "token"
    router: Literal["learned", "reference", "random", "dense"] = "learned"
    scope: Literal["sequence", "micro_batch", "global_batch", "none"] = "global_batch"
    balance: float = Field(default=0.01, ge=0)
    """Weight of the balance loss."""
    sources: tuple[str, ...] = ()
    """For `reference`: the sources, in the order of their experts."""

    @model_validator(mode="after")
    def _enough_experts(self) -> "MoeMlp":
        if self.top_k > self.experts:
            raise ValueError(f"`top_k` {self.top_k} is more than the {self.experts} `experts`")
        if (self.router == "reference") != bool(self.sources):
            raise ValueError("`sources` go with `router: reference`, which sends each to experts of its own; name both")
        if len(self.sources) * self.top_k > self.experts:
            raise ValueError(f"{len(self.sources)} sources with {self.top_k} experts each need more `experts`")
        return self

    def refusal(self, hidden: int | None, inject_layer: int, vision_layer: int) -> str | None:
        """The reference router has to be told sources."""
        if self.router == "reference":
            return (
                "the reference router sends an image to its source's expert, and held-out images have no source; it is "
                "a yardstick for `bench/experts.py`: choose `router: learned`"
            )
        return super().refusal(hidden, inject_layer, vision_layer)

    def tokens(self, grid: Grid) -> int:
        """As many as there are features."""
        return grid.cells

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """Experts and router with torch's default weights for linear layers."""
        from stages.train.connectors.moe_mlp.network import Experts

        with seeded(seed):
            return Experts(self, vision_width, language_width)
