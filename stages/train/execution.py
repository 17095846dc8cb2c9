"""How a run is carried out: optimizer, rate, precision, passes and workers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.file_identity import Located
from stages.train.precision import Precision

Beta = Annotated[float, Field(ge=0, lt=1)]


class Execution(BaseModel):
    """The settings of `train` that say how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Literal["cosine", "one_cycle"] = "cosine"
    """`one_cycle`: up over the first half of the budget, down over the second, both linearly."""
    reference_table: Located | None = None
    """Times of steps on a reference machine, for a budget in `reference_seconds`."""
    optimizer: Literal["adamw", "stable_adamw"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    precision: Precision = "fp32"
    """`bf16`: the frozen models, and what is computed between the connector's fp32 weights and the fp32 losses."""
    micro_batch: int | None = Field(None, gt=0)
    """Samples of one forward and backward pass; default: the batch."""
    gradient_checkpointing: bool = False
    """Compute layers twice and keep less: half as slow again, for what does not fit otherwise."""
    compile: bool = False
    """Compile the language model's layers."""
    features: Literal["cached", "online"] = "cached"
    """`online`: the tower runs in every step, and no visual token but those of held-out pairs is kept."""
    decode_threads: int = Field(4, ge=0)
    """Of `online`: they read and decode the images of the next steps meanwhile; 0: images are read when needed."""
    workers_per_run: int = Field(1, gt=0)
    """Workers that share one run, each with its part of every batch."""


EXECUTION_SETTINGS = tuple(Execution.model_fields)
"""Their names."""
