"""From survivors to draws: the mixer weighs the sources, quotas turn weights into repeats."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.fingerprints import fingerprint, rounded
from pipeline.mix import draw, natural_shares, quotas
from pipeline.select import Selected
from pipeline.sidecars import read_json, write_json, write_table
from schemas.errors import CuveeError
from schemas.tables import POOL_ROLE, SELECTION, TARGET_ROLE
from stages.mixer import Floats, Mixer, Mixture, MixtureEvidence, SourceEvidence


@dataclass
class Blend:
    """What will be drawn, and why."""

    draws: pl.DataFrame
    """(uid, repeats), a line per survivor in uid order; repeats may be 0."""
    fingerprint: str
    shares: dict[str, dict[str, float]]
    """Per source: pool, surviving, ideal, capped, realised."""
    mixture: dict[str, Any] | None
    notes: list[str]
    seconds: float = 0.0
    reused: bool = False


def blend(chosen: Selected) -> Blend:
    """Mix, set quotas and draw; the selection is stored under its address.

    Raises:
        CuveeError: more samples are asked for than the survivors and the cap allow, with both numbers.
    """
    began = time.perf_counter()
    recipe = chosen.table.resolved.recipe
    mixer = chosen.table.resolved.mixer
    wanted = recipe.export.samples if recipe.export else None
    available = dict(chosen.survivors.group_by("source").len().sort("source").iter_rows())
    samples = wanted or len(chosen.survivors)
    mixture, reused, chain = _mixture(chosen, mixer, samples) if mixer else (None, False, chosen.chain)
    shares = mixture["capped"] if mixture else natural_shares(available)
    cap = mixer.repeats_allowed() if mixer else 1
    counts = quotas(shares, available, samples, cap)
    draws = draw(chosen.survivors, counts, recipe.seed)
    fp = fingerprint([chain, samples, counts])
    _store(chosen, draws, fp)
    report = _shares(chosen, mixture, counts)
    notes = [f"source {name!r} has no surviving rows: weight 0" for name in _sources(chosen) if name not in available]
    return Blend(draws, fp, report, mixture, notes, time.perf_counter() - began, reused)


def _mixture(chosen: Selected, mixer: Mixer, samples: int) -> tuple[dict[str, Any], bool, str]:
    chain = fingerprint([chosen.chain, chosen.table.resolved.method_identity(mixer), samples])
    path = chosen.table.resolved.workspace.fit(f"{mixer.kind}-{chain}") / "mixture.json"
    reused = path.exists()
    if not reused:
        write_json(rounded(asdict(_mixed(chosen, mixer, samples))), path)
    return read_json(path), reused, chain


def _mixed(chosen: Selected, mixer: Mixer, samples: int) -> Mixture:
    table, columns = chosen.table, mixer.columns()
    rows = table.scores(POOL_ROLE, columns).join(chosen.survivors.lazy().select("uid", "weight"), on="uid").sort("uid")
    frames = rows.collect().drop_nulls(list(columns)).partition_by("source", as_dict=True)
    sources = {
        str(name[0]): SourceEvidence(
            {column: values(frame[column]) for column in columns}, frame["weight"].to_numpy(), frame["uid"].to_list()
        )
        for name, frame in sorted(frames.items())
    }
    target: dict[str, Floats] = {}
    if mixer.needs_target():
        scores = table.scores(TARGET_ROLE, columns).join(chosen.target.lazy(), on="uid", how="semi").sort("uid")
        seen = scores.collect().drop_nulls(list(columns))
        target = {column: values(seen[column]) for column in columns}
    try:
        return mixer.mix(MixtureEvidence(sources, target, samples, _natural(chosen), table.resolved.recipe.seed))
    except CuveeError as error:
        raise type(error)(f"mixer {mixer.kind!r}: {error}") from error


def values(column: pl.Series) -> Floats:
    """(n,) or (n, d) float32 of a score column; a list column becomes a matrix.

    Raises:
        CuveeError: rows of unequal length.
    """
    array = column.to_arrow()
    if not (pa.types.is_large_list(array.type) or pa.types.is_list(array.type)):
        return column.cast(pl.Float32).to_numpy()
    if column.list.len().n_unique() > 1:
        raise CuveeError(f"column {column.name!r} holds lists of unequal length; were two models mixed?")
    flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    matrix: Floats = flat.reshape(len(array), len(flat) // max(1, len(array)))
    return matrix


def _natural(chosen: Selected) -> dict[str, float]:
    """Shares of the decodable pool: everything that was not quarantined."""
    sound = chosen.table.samples.filter(pl.col("role") == POOL_ROLE).join(chosen.quarantined, on="uid", how="anti")
    return natural_shares(dict(sound.group_by("source").len().sort("source").iter_rows()))


def _sources(chosen: Selected) -> list[str]:
    return sorted(source.source for source in chosen.table.resolved.recipe.pool)


def _store(chosen: Selected, draws: pl.DataFrame, fp: str) -> None:
    path = chosen.table.resolved.workspace.selection(fp)
    if path.exists():
        return
    identity = chosen.table.samples.select("uid", "source", pl.col("digest").alias("shard"), "row")
    drawn = draws.filter(pl.col("repeats") > 0).join(identity, on="uid")
    drawn = drawn.join(chosen.survivors.select("uid", "weight"), on="uid").sort("uid")
    write_table(drawn.select(SELECTION.names).to_arrow().cast(SELECTION), path)


def _shares(chosen: Selected, mixture: dict[str, Any] | None, counts: dict[str, int]) -> dict[str, dict[str, float]]:
    survivors = natural_shares(dict(chosen.survivors.group_by("source").len().sort("source").iter_rows()))
    parts = {"pool": _natural(chosen), "surviving": survivors, "realised": natural_shares(counts)}
    if mixture is not None:
        parts |= {"ideal": mixture["weights"], "capped": mixture["capped"]}
    shares = {
        source: {name: part.get(source, 0.0) for name, part in sorted(parts.items())} for source in _sources(chosen)
    }
    rounded_shares: dict[str, dict[str, float]] = rounded(shares)
    return rounded_shares
