"""The contract of a connector: settings, found by their kind, that build the module between the two frozen models.

The module maps visual features (n, v, vision width) in fp32 to (n, `tokens`, language width) in fp32; one whose
settings say `reads_prompt` is also given the prompt's states (n, p, language width) and which of them are there (n, p).
Where it has an attribute `penalty`, that is a scalar its last forward set, which is added to the mean loss.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ContractError

if TYPE_CHECKING:
    import torch

FeatureKind = Literal["patches", "class_tokens"]
"""Patch features of the tower's last layer; or one vector of each of its last layers, first to last."""


class Grid(NamedTuple):
    """How an image's features stand, row by row; class tokens are one row."""

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        """Features per image."""
        return self.rows * self.columns


class Connector(BaseModel):
    """One kind of connector: its settings are its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: ClassVar[int] = 1
    """Raise it whenever the same settings, weights and features give other tokens, or the same seed other weights."""
    features: ClassVar[FeatureKind] = "patches"
    """What it reads of the tower."""
    reads_prompt: ClassVar[bool] = False
    """Whether it is shown the states of the text before the image, at the layer where its tokens go in."""
    grid_bound: ClassVar[bool] = False
    """Whether its tokens depend on how the features stand in rows."""
    placement: ClassVar[Literal["insert", "replace"]] = "insert"
    """`insert`: tokens are places of their own. `replace`: all but the first `soft` of them are the values of a single
    place, at the input of one layer after the other, of the last that the language model has."""

    @property
    def soft(self) -> int:
        """Tokens in front that are inserted, where the others replace."""
        return 0

    def tokens(self, grid: Grid) -> int:
        """Tokens that the language model is given per image."""
        raise ContractError(f"{type(self).__name__} does not implement tokens()")

    def places(self, grid: Grid) -> int:
        """Places that these take up in a sequence."""
        return self.tokens(grid) if self.placement == "insert" else self.soft + 1

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """The module in fp32 on the CPU, with initial weights that depend on settings, widths and seed alone."""
        raise ContractError(f"{type(self).__name__} does not implement build()")

    def resolved(self, hidden: int | None, vision_width: int, language_width: int) -> "Connector":
        """The settings with every width named, as they are saved: `hidden` comes from `train`."""
        return self

    def refusal(self, hidden: int | None, inject_layer: int, vision_layer: int) -> str | None:
        """Why it cannot be trained under these settings of `train`; None: it can."""
        if hidden is not None and "hidden" not in type(self).model_fields:
            return f"`hidden` is the width inside an mlp; {self.kind!r} has no such layer"
        if self.features != "patches" and vision_layer != -1:
            return f"`vision_layer` says whose patches are read; {self.kind!r} reads one vector of each last layer"
        if self.reads_prompt and not inject_layer:
            return (
                f"connector {self.kind!r} reads the prompt's states at the layer where its tokens go in, and at layer "
                "0 these are mere embeddings; set `inject_layer`, a quarter of the depth for instance"
            )
        return None

    def blank(self) -> "Connector":
        """Settings that build the same module without reading weights from a file; those are put in afterwards."""
        return self

    def located(self) -> "Connector":
        """The same with absolute paths, for a worker that runs in another folder."""
        return self

    def identity(self) -> dict[str, Any]:
        """What its tokens depend on, beside its trained weights: the settings, and files by content."""
        return {**self.model_dump(mode="json"), "version": self.version}


class TwoLayers(Connector):
    """A connector that ends in LLaVA-1.5's two layers, Linear, GELU, Linear."""

    hidden: int | None = Field(default=None, gt=0)
    """Width between the two layers; default: that under `train`, else the language model's."""

    def resolved(self, hidden: int | None, vision_width: int, language_width: int) -> "TwoLayers":
        """With `hidden` named."""
        return self.model_copy(update={"hidden": self.hidden or hidden or language_width})

    def layers(self, width: int, language_width: int, times: int = 1) -> "torch.nn.Sequential":
        """The two layers with torch's default weights, the middle `times` as wide."""
        from torch import nn

        hidden = times * (self.hidden or language_width)
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, language_width))


def connector_of(given: Any) -> Any:
    """A connector from its name, or from its kind and settings; anything else is left to the validation.

    Raises:
        ValueError: a kind that is not known.
    """
    facts = {"kind": given} if isinstance(given, str) else given
    if not isinstance(facts, dict) or not isinstance(facts.get("kind"), str):
        return given
    from stages.kinds import kinds  # it imports every method, this module included

    known = kinds(Connector)
    if facts["kind"] not in known:
        raise ValueError(f"found connector {facts['kind']!r}, expected one of {', '.join(known)}")
    return known[facts["kind"]].model_validate(facts)
