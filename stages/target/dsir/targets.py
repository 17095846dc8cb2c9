"""The targets of a draw: how a recipe names them, and their captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import polars as pl
from pydantic import BeforeValidator, Field

from schemas.columns import CAPTION
from schemas.errors import CuveeError
from stages.budget import Mask
from stages.ngrams import Ngrams
from stages.noise import uniform_noise
from stages.rule import Context
from stages.target.dsir.captions import Features

TARGET = "target"
"""The recipe's target; other names are its references."""
HELD_OUT_SHARE = 0.2


def _pairs(targets: Any) -> Any:
    """Names with shares or without, as pairs in the order in which they are written: it matters who draws first."""
    if isinstance(targets, Mapping):
        return tuple(targets.items())
    if isinstance(targets, list | tuple):
        return tuple((name, None) if isinstance(name, str) else name for name in targets)
    return targets


Share = Annotated[float, Field(gt=0, le=1)]
Targets = Annotated[tuple[tuple[str, Share | None], ...], BeforeValidator(_pairs), Field(min_length=1)]


@dataclass(frozen=True)
class Target:
    """n captions that hold a token, and which of them (n,) are held out of the fit that is tested on them."""

    ngrams: Ngrams
    held_out: Mask

    @property
    def testable(self) -> bool:
        """False for a tiny target."""
        return bool(self.held_out.any() and not self.held_out.all())


def read_target(name: str, context: Context, features: Features) -> Target:
    """One target's captions.

    Raises:
        CuveeError: the recipe has no such set of samples, or none of them has a caption with a token.
    """
    rows = context.target if name == TARGET else context.references.get(name)
    if rows is None:
        key = "target: {shards: ...}" if name == TARGET else f"references: {{{name}: {{shards: ...}}}}"
        raise CuveeError(f"dsir needs the target {name!r} and got none; add `{key}` to the recipe")
    captions = features.read(rows.select("uid", CAPTION.name).sort("uid").collect())
    worded = captions.ngrams.tokens > 0
    if not worded.any():
        raise CuveeError(
            f"none of the {len(worded)} samples of target {name!r} has a caption; dsir compares captions, so name "
            f"shards with a .txt member, or leave dsir out"
        )
    uids = captions.uids.filter(pl.Series(worded)).to_list()
    return Target(captions.ngrams.only(worded), uniform_noise(uids, context.seed, "dsir evidence") < HELD_OUT_SHARE)
