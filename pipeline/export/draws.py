"""What to write and under which name: the selected samples of a pool."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.blend import Blend
from pipeline.captions import all_captions
from pipeline.fingerprints import fingerprint
from pipeline.fits import FIT, read_facts
from pipeline.resolve import Resolved
from pipeline.select import Selected
from pipeline.table import ScoreTable
from schemas.columns import CAPTIONS
from schemas.recipe import Export

EXPORT_VERSION = 2
"""Raise it when the same selection is written as other bytes."""


@dataclass(frozen=True)
class Draws:
    """The drawn samples and everything else the exported bytes depend on."""

    table: ScoreTable
    repeats: pl.DataFrame
    """(uid, repeats)."""
    settings: Export
    facts: dict[str, Any]
    """Goes into the manifest; free of paths, times and hosts."""
    captions: pl.DataFrame | None = None
    """(uid, captions) of the drawn samples, where `captions` is among the columns."""

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return self.table.resolved.recipe.seed

    @property
    def samples(self) -> int:
        """How many are written, repeats counted."""
        return int(self.repeats["repeats"].sum())

    @property
    def address(self) -> str:
        """Content address of the export."""
        drawn = self.repeats.filter(pl.col("repeats") > 0).sort("uid")
        content = hashlib.sha256(drawn.write_csv().encode()).hexdigest()
        addresses = self.table.resolved.addresses if self.settings.columns else {}
        parts = [EXPORT_VERSION, content, self.settings.identity(), addresses, self.facts, self.seed]
        if self.captions is not None:
            parts.append(hashlib.sha256(self.captions.write_json().encode()).hexdigest())
        return fingerprint(parts)


def _fits(resolved: Resolved, columns: Collection[str]) -> dict[str, Any]:
    """What the exported scores were learned with, e.g. the cuts of levels; nothing where none of them learns."""
    kinds = [stage.name for stage in resolved.stages if {field.name for field in stage.writes} & {*columns}]
    root = resolved.workspace.root
    found = {
        kind: {"sha256": line["sha256"], **read_facts(root / line["folder"] / FIT)}
        for kind, line in resolved.fits.items()
        if kind in kinds
    }
    return {"fits": found} if found else {}


def blend_draws(chosen: Selected, blend: Blend) -> Draws:
    """The recipe's own export."""
    table, recipe = chosen.table, chosen.table.resolved.recipe
    assert recipe.export is not None
    facts = {
        "recipe": table.resolved.recipe_fingerprint(),
        "pool": table.pool_fingerprint(),
        "seed": recipe.seed,
        "weights": {source: shares["realised"] for source, shares in blend.shares.items()},
        "settings": table.resolved.identity(),
        **_fits(table.resolved, recipe.export.columns),
    }
    drawn = blend.draws.filter(pl.col("repeats") > 0)["uid"].sort()
    captions = all_captions(chosen, drawn) if CAPTIONS.name in recipe.export.columns else None
    return Draws(table, blend.draws.select("uid", "repeats"), recipe.export, facts, captions)
