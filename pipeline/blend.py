"""From survivors to draws: the mixer weighs the sources, quotas turn weights into repeats."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.fingerprints import fingerprint, rounded
from pipeline.fits import Pin, fit_line, write_fit
from pipeline.mix import draw, natural_shares, quotas
from pipeline.select import Selected
from pipeline.sidecars import read_json, write_json, write_table
from schemas.errors import ContractError, CuveeError
from schemas.tables import POOL_ROLE, SELECTION, TARGET_ROLE
from stages.mixer import Floats, Mixer, Mixture, MixtureEvidence, SourceEvidence
from stages.mixture.trials_table import read_trials
from stages.schedule import Proxy


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
    fit: dict[str, Any] | None = None
    """Where the mixer's fit lies, for run.json; None for a mixer that learns nothing."""


def blend(chosen: Selected, proxy: Callable[[], Proxy] | None = None) -> Blend:
    """Mix, set quotas and draw; the selection is stored under its address.

    Args:
        chosen: the survivors.
        proxy: makes what a mixer that learns from training needs.

    Raises:
        CuveeError: more samples are asked for than the survivors and the cap allow, with both numbers.
    """
    began = time.perf_counter()
    recipe = chosen.table.resolved.recipe
    mixer = chosen.table.resolved.mixer
    wanted = recipe.export.samples if recipe.export else None
    available = dict(chosen.survivors.group_by("source").len().sort("source").iter_rows())
    samples = wanted or len(chosen.survivors)
    mixture, reused, chain, fit = (
        _mixture(chosen, mixer, samples, proxy) if mixer else (None, False, chosen.chain, None)
    )
    shares = mixture["capped"] if mixture else natural_shares(available)
    cap = mixer.repeats_allowed() if mixer else 1
    counts = quotas(shares, available, samples, cap)
    draws = draw(chosen.survivors, counts, recipe.seed)
    fp = fingerprint([chain, samples, counts])
    _store(chosen, draws, fp)
    report = _shares(chosen, mixture, counts)
    notes = [f"source {name!r} has no surviving rows: weight 0" for name in _sources(chosen) if name not in available]
    notes += mixture["notes"] if mixture else []
    if mixer and fit and (pins := chosen.table.resolved.pins) and pins.mixer is None:
        notes.append(pins.refitted(mixer.kind))
    return Blend(draws, fp, report, mixture, notes, time.perf_counter() - began, reused, fit)


def _mixture(
    chosen: Selected, mixer: Mixer, samples: int, make: Callable[[], Proxy] | None
) -> tuple[dict[str, Any], bool, str, dict[str, Any] | None]:
    resolved = chosen.table.resolved
    pin = resolved.pins.mixer if resolved.pins else None
    pinned = [pin.sha256] if pin else []
    proxy = make() if make is not None and mixer.needs_proxy() else None
    trained = [proxy.identity] if proxy is not None else []
    chain = fingerprint([chosen.chain, resolved.method_identity(mixer), samples, *pinned, *trained])
    folder = resolved.workspace.fit(f"{mixer.kind}-{chain}")
    path = folder / "mixture.json"
    reused = path.exists()
    if not reused:
        mixture = _mixed(chosen, mixer, samples, pin, proxy)
        if mixture.fit is not None:
            write_fit(mixture.fit, folder)
        write_json(rounded(asdict(replace(mixture, fit=None))), path)
    return read_json(path), reused, chain, fit_line(folder, resolved.fit_key(mixer), pin)


def _mixed(chosen: Selected, mixer: Mixer, samples: int, pin: Pin | None, proxy: Proxy | None) -> Mixture:
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
        fit = pin.read() if pin else None
        natural, seed = _natural(chosen), table.resolved.recipe.seed
        file = mixer.trials_file()
        trials = read_trials(file) if file is not None else None
        mixture = mixer.mix(MixtureEvidence(sources, target, samples, natural, seed, fit, trials, proxy))
    except CuveeError as error:
        raise type(error)(f"mixer {mixer.kind!r}: {error}") from error
    if fit is None:
        return mixture
    if mixture.fit != fit:
        raise ContractError(f"mixer {mixer.kind!r} was given a pinned fit and returned another")
    return replace(mixture, evidence={**mixture.evidence, "pinned": True})


def values(column: pl.Series) -> npt.NDArray[Any]:
    """(n,) or (n, d) float32 of a score column; a list column becomes a matrix, names stay names.

    Raises:
        CuveeError: rows of unequal length.
    """
    if column.dtype == pl.String:
        return column.to_numpy().astype(str)
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
