"""What pilots are measured on and what they draw from: nothing that is measured on is ever drawn, nor its twins."""

from dataclasses import dataclass

import polars as pl

from pipeline.holdout import matching
from pipeline.select import Selected
from schemas.errors import CuveeError
from schemas.recipe import Trials
from schemas.tables import TARGET_ROLE
from stages.noise import uniform_noise

LEAST = 16
"""Pairs to measure on, and to draw from, of every source."""
MOST = 1000
"""Pairs to measure on of one source: more would cost time and tell little."""
ENOUGH = 16_384
"""Samples of a source that pilots draw from, unless a budget is larger: what they share has to fit into memory, and
another budget below it leaves finished trials what they are."""
TARGET = "target"
"""Name of the target among the held-out sources."""


@dataclass(frozen=True)
class Split:
    """(uid, image_hash) per source, in uid order; sources by name."""

    chosen: Selected
    drawn_from: dict[str, pl.DataFrame]
    held: dict[str, pl.DataFrame]
    """Of every source that is drawn from, and of the target."""
    matching: int
    """Survivors that are not drawn because they match a pair that is measured on."""
    idle: tuple[str, ...]
    """Sources of the pool without a survivor."""


def hold_out(chosen: Selected, trials: Trials) -> Split:
    """Split the survivors of each source, by hash of the image's content: twins fall on one side.

    The target is measured on as well: of what rules and mixers may see, not of what a final proof holds out. Survivors
    that match anything measured on, in any source (equal bytes, or close perceptual hashes), are left out. A source
    that is larger than `ENOUGH` and the largest budget is thinned to the samples with the smallest hash(seed, uid).

    Raises:
        CuveeError: too few pairs to measure on, or too few left to draw from, with the numbers.
    """
    seed, samples = chosen.table.resolved.recipe.seed, chosen.table.samples.filter(pl.col("image_hash").is_not_null())
    pool = samples.join(chosen.survivors.select("uid"), on="uid", how="semi")
    sources = sorted(pool["source"].unique())
    held = {name: _held(pool.filter(pl.col("source") == name), trials.held_out, seed) for name in sources}
    if chosen.table.resolved.recipe.target is not None:
        target = samples.filter(pl.col("role") == TARGET_ROLE).join(chosen.target, on="uid", how="semi")
        held[TARGET] = _first(_shuffled(target, seed), MOST)
    apart = pl.concat(held.values())
    seen = pl.concat([pool, samples.join(apart, on="uid", how="semi")]).unique("uid")
    matches = matching(chosen.table, seen, apart.select("uid"))
    rest = pool.join(apart, on="uid", how="anti").join(matches, on="uid", how="anti")
    most = max(ENOUGH, *trials.budgets)
    drawn_from = {name: _thinned(rest.filter(pl.col("source") == name), most, seed) for name in sources}
    _refuse_few(held, drawn_from, {name: int((pool["source"] == name).sum()) for name in sources})
    idle = sorted({source.source for source in chosen.table.resolved.recipe.pool} - set(sources))
    lost = len(pool) - len(rest) - len(pool.join(apart, on="uid", how="semi"))
    return Split(chosen, drawn_from, {name: held[name] for name in sorted(held)}, lost, tuple(idle))


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    noise = uniform_noise(rows["image_hash"].to_list(), seed, "trials held out")
    return rows.with_columns(pl.Series("noise", noise)).sort("noise", "uid")


def _held(rows: pl.DataFrame, wanted: int | float, seed: int) -> pl.DataFrame:
    order = _shuffled(rows, seed)
    if isinstance(wanted, int):
        return _first(order, min(wanted, MOST))
    return _first(order.filter(pl.col("noise") < wanted), MOST)


def _first(order: pl.DataFrame, count: int) -> pl.DataFrame:
    """The images of the first rows, with all their rows."""
    images = order.head(count).select("image_hash")
    return order.join(images, on="image_hash", how="semi").select("uid", "image_hash").sort("uid")


def _thinned(rows: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    if len(rows) > most:
        noise = uniform_noise(rows["uid"].to_list(), seed, "trials thinned")
        rows = rows.with_columns(pl.Series("noise", noise)).sort("noise", "uid").head(most)
    return rows.select("uid", "image_hash").sort("uid")


def _refuse_few(held: dict[str, pl.DataFrame], drawn_from: dict[str, pl.DataFrame], survivors: dict[str, int]) -> None:
    for name, rows in held.items():
        if len(rows) < LEAST:
            found = f"{survivors[name]} survivors" if name in survivors else "what there is of it"
            raise CuveeError(
                f"held-out source {name!r} has {len(rows)} pairs of {found}, expected at least {LEAST}; raise "
                "`trials.held_out`, or give it more samples"
            )
    for name, rows in drawn_from.items():
        if len(rows) < LEAST:
            raise CuveeError(
                f"source {name!r} has {len(rows)} of {survivors[name]} survivors to draw from beside what is held out "
                f"or matches it, expected at least {LEAST}; lower `trials.held_out`, or leave it out of the pool"
            )
