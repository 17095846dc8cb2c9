"""One run of a recipe, from what is missing to its record; every part is skipped when its result is there."""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pipeline.blend import Blend, blend
from pipeline.cluster import Cluster
from pipeline.continual import going_on, write_going_on
from pipeline.export import blend_draws, export, refuse_foreign
from pipeline.export.publish import publish, refuse_foreign_store
from pipeline.fingerprints import rounded
from pipeline.ledger import make_ledger, unreadable, write_ledger
from pipeline.plan import snapshot
from pipeline.proof import Evidence, prove, settings
from pipeline.resolve import Resolved, folders
from pipeline.score import Progress, Scored, TooManyBadShardsError, score
from pipeline.select import Decision, Selected, select
from pipeline.shards import Container, img2dataset
from pipeline.sidecars import machine_facts, replacing, sweep, write_json, write_table
from pipeline.spending import settle_accounts, spending_lines, spending_note
from pipeline.table import ScoreTable
from pipeline.tasks import streaming
from schemas.errors import CuveeError
from schemas.tables import POOL_ROLE
from stages.rule import Rule
from stages.schedule import Proxy

Until = Literal["score", "select", "mix", "export", "train"]
ORDER: tuple[Until, ...] = ("score", "select", "mix", "export", "train")


@dataclass
class Outcome:
    """What a run did and where it stands on disk."""

    name: str
    folder: Path
    resolved: Resolved
    scored: Scored
    chosen: Selected
    blend: Blend | None = None
    manifest: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    """What `cuvee compare` found, as it stands in compare.json."""
    trials: dict[str, Any] | None = None
    """What `cuvee trials` ran, as it stands in trials.json."""
    ledger: pl.DataFrame = field(default_factory=pl.DataFrame)
    record: dict[str, Any] = field(default_factory=dict)


def run(
    resolved: Resolved,
    cluster: Cluster,
    *,
    until: Until = "train",
    progress: Progress = lambda *_: None,
    verify: bool = False,
) -> Outcome:
    """Do what is missing up to `until` and record the run; `verify` digests every shard anew.

    Raises:
        RecipeError: the export folder belongs to somebody else.
        CuveeError: with the stage, the shard and what to do.
    """
    if resolved.recipe.export is not None:
        refuse_foreign(resolved.export_folder, resolved.recipe.name)
        if resolved.export_url is not None:
            refuse_foreign_store(resolved.export_url, resolved.recipe.name)
    proxies = resolved.mixer is not None and resolved.mixer.needs_proxy() and _reaches(until, "mix")
    if resolved.recipe.train is not None and (proxies or _reaches(until, "train")):
        settings(resolved)  # refuses what the trainer cannot take before anything is computed
    clock = Clock()
    outcome = begin(resolved, cluster, clock, lambda _: until != "score", progress, verify=verify)
    chosen, resolved = outcome.chosen, outcome.resolved
    if _reaches(until, "mix"):
        outcome.blend = clock.timed("mix", lambda: blend(chosen, lambda: _proxy(chosen, cluster, progress)))
    with ThreadPoolExecutor(1) as aside:
        ledger = aside.submit(make_ledger, chosen, outcome.blend)
        if _reaches(until, "export") and resolved.recipe.export is not None and outcome.blend is not None:
            _exported(outcome, outcome.blend, cluster, clock, progress)
        outcome.ledger = ledger.result()
    if _reaches(until, "train") and resolved.recipe.train is not None:
        evidence = Evidence(chosen, resolved.export_folder, outcome.manifest or {})
        outcome.training, clock.reused["train"] = clock.timed("train", lambda: prove(evidence, cluster, progress))
    record(outcome, clock, until, cluster.started)
    return outcome


def _exported(outcome: Outcome, mixed: Blend, cluster: Cluster, clock: "Clock", progress: Progress) -> None:
    resolved, draws = outcome.resolved, blend_draws(outcome.chosen, mixed)
    outcome.manifest, clock.reused["export"] = clock.timed(
        "export", lambda: export(draws, resolved.export_folder, resolved.recipe.name, cluster, progress)
    )
    if (url := resolved.export_url) is not None:
        clock.reused["publish"] = clock.timed("publish", lambda: publish(resolved.export_folder, url))


def begin(
    resolved: Resolved,
    cluster: Cluster,
    clock: "Clock",
    takes: Callable[[Rule], bool],
    progress: Progress,
    *,
    verify: bool = False,
) -> Outcome:
    """How every run begins: score what is missing, then fold the rules that `takes` says yes to."""
    name = _run_name(resolved)
    scored = clock.timed("score", lambda: _scored(resolved, cluster, progress, name, verify))
    table = ScoreTable(scored.resolved, tuple(scored.shards))
    stream = streaming(cluster)
    chosen = clock.timed("select", lambda: select(table, progress, takes=takes, stream=stream))
    return Outcome(name, resolved.workspace.run(name), scored.resolved, scored, chosen)


def _proxy(chosen: Selected, cluster: Cluster, progress: Progress) -> Proxy:
    """What a mixer that learns from training is handed."""
    from pipeline.proxy import ConnectorProxy  # it splits as trials do, and trials begin as runs do

    return ConnectorProxy(chosen, cluster, progress)


def _run_name(resolved: Resolved) -> str:
    """Names that sort by time; two runs may begin within a second."""
    moment = f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]  # to the millisecond
    name = f"{moment}-{resolved.recipe_fingerprint()[:6]}"
    free = (f"{name}-{number}" if number > 1 else name for number in itertools.count(1))
    return next(candidate for candidate in free if not resolved.workspace.run(candidate).exists())


def _scored(resolved: Resolved, cluster: Cluster, progress: Progress, name: str, verify: bool) -> Scored:
    try:
        return score(resolved, cluster, progress, verify=verify)
    except TooManyBadShardsError as error:
        folder = resolved.workspace.run(name) / "ledger"
        write_ledger(unreadable(error.bad), folder)
        raise CuveeError(f"{error}; all of them are listed in {folder}") from error


def _reaches(until: Until, part: Until) -> bool:
    return ORDER.index(until) >= ORDER.index(part)


@dataclass
class Clock:
    """Wall seconds per part."""

    seconds: dict[str, float] = field(default_factory=dict)
    reused: dict[str, bool] = field(default_factory=dict)

    def timed(self, part: str, work: Callable[[], Any]) -> Any:
        """Do the work and note how long it took."""
        began = time.perf_counter()
        result = work()
        self.seconds[part] = round(time.perf_counter() - began, 3)
        return result


def record(outcome: Outcome, clock: Clock, until: str, ray_started: bool) -> None:
    """How every run ends: its tables and its record in its folder."""
    resolved, chosen = outcome.resolved, outcome.chosen
    pool = outcome.ledger.filter(pl.col("role") == POOL_ROLE)
    spending = spending_lines(resolved)
    outcome.record = {
        "run": outcome.name,
        "recipe": resolved.recipe.model_dump(mode="json", exclude_none=True),
        "recipe_folder": str(resolved.folder),
        "recipe_fingerprint": resolved.recipe_fingerprint(),
        "pool_fingerprint": chosen.table.pool_fingerprint(),
        "addresses": folders(resolved),
        "seed": resolved.recipe.seed,
        "until": until,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ray_started": ray_started,
        **machine_facts(),
        "computed": sum(outcome.scored.computed.values()),
        "stages": [_stage_line(outcome.scored, kind) for kind in outcome.scored.computed],
        "steps": [_step_line(decision) for decision in chosen.decisions],
        "seconds": clock.seconds,
        "reused": clock.reused,
        "image_bytes_read": outcome.scored.bytes,
        "samples": {"in": len(pool), **{s: int((pool["status"] == s).sum()) for s in sorted(set(pool["status"]))}},
        "shares": outcome.blend.shares if outcome.blend else None,
        "mixture": _mixture_line(outcome.blend),
        "pinned_to": str(resolved.pins.folder) if resolved.pins else None,
        "fits": sorted(resolved.workspace.used_fits),
        "arms": sorted(resolved.workspace.used_arms),
        "selection": outcome.blend.fingerprint if outcome.blend else None,
        "export": _export_line(outcome),
        "training": outcome.training,
        "trials": outcome.trials,
        "spending": spending,
        "notes": _input_notes(outcome)
        + [spending_note(line) for line in spending]
        + chosen.notes
        + (outcome.comparison["notes"] if outcome.comparison else [])
        + (outcome.trials["notes"] if outcome.trials else [])
        + (outcome.blend.notes if outcome.blend else []),
    }
    found = None
    if outcome.manifest is not None and outcome.blend is not None:
        found = going_on(resolved, outcome.blend.fingerprint, resolved.export_folder)
    outcome.record["continual"] = found[0] if found else None
    outcome.folder.mkdir(parents=True, exist_ok=True)
    if found:
        write_going_on(found, outcome.folder)
    write_table(snapshot(outcome.scored.shards), outcome.folder / "pool.parquet")
    write_ledger(outcome.ledger, outcome.folder / "ledger")
    write_json(rounded(outcome.record), outcome.folder / "run.json")


def _input_notes(outcome: Outcome) -> list[str]:
    return _shard_notes(outcome.scored) + _refitted(outcome.resolved) + _not_downloaded(outcome.resolved)


def _refitted(resolved: Resolved) -> list[str]:
    pins = resolved.pins
    return [pins.refitted(kind) for kind in resolved.fits if kind not in pins.stages] if pins else []


def _not_downloaded(resolved: Resolved) -> list[str]:
    sources: dict[str, list[Container]] = {}
    for item in resolved.inputs:
        sources.setdefault(item.source, []).append(item.container)
    notes = (img2dataset.note(source, img2dataset.statuses(found)) for source, found in sources.items())
    return [line for line in notes if line is not None]


def _shard_notes(scored: Scored) -> list[str]:
    changed = [f"{path} had changed behind an equal size and time" for path in scored.changed]
    bad = [shard for shard in scored.shards if shard.reason is not None]
    if not bad:
        return changed
    counts = Counter(str(shard.reason) for shard in bad)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    paths = sorted(shard.input.container.path for shard in bad)
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return [
        *changed,
        f"{len(bad)} of {len(scored.shards)} shards cannot be read ({reasons}): {', '.join(paths[:3])}{more}",
    ]


def finish(outcome: Outcome) -> None:
    """Name this run as the newest finished one; what killed workers left half written, or late ones wrote, goes."""
    sweep(outcome.resolved.workspace.root)
    outcome.resolved.workspace.drop_staged(set())
    outcome.resolved.workspace.drop_marks(set(outcome.resolved.workspace.marks()))
    settle_accounts(outcome.resolved)
    with replacing(outcome.resolved.workspace.root / "runs" / "latest") as temporary:
        temporary.write_text(outcome.name + "\n")


def _stage_line(scored: Scored, kind: str) -> dict[str, Any]:
    seconds, samples = scored.seconds[kind], scored.samples[kind]
    return {
        "kind": kind,
        "computed": scored.computed[kind],
        "reused": scored.reused[kind],
        "samples": samples,
        "seconds": round(seconds, 3),
        "samples_per_s": round(samples / seconds, 3) if seconds else None,
        "fit": scored.resolved.fits.get(kind),
    }


def _step_line(decision: Decision) -> dict[str, Any]:
    counts = decision.verdict.dropped.group_by("reason").len().sort("reason")
    return {
        "name": decision.title,
        "kind": decision.kind,
        "decided_by": decision.name,
        "settings": decision.rule.model_dump(mode="json", exclude={"kind"}) if decision.rule else {},
        "likeness": decision.rule.likeness if decision.rule else "",
        "in": decision.n_in,
        "kept": decision.n_kept,
        "dropped": dict(counts.iter_rows()),
        "seconds": round(decision.seconds, 3),
        "reused": decision.reused,
        "fit": decision.fit,
        "evidence": decision.verdict.evidence,
    }


def _mixture_line(blend: Blend | None) -> dict[str, Any] | None:
    return {**blend.mixture, "fit": blend.fit} if blend and blend.mixture else None


def _export_line(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.manifest is None:
        return None
    facts = {name: outcome.manifest[name] for name in ("address", "samples", "distinct_samples", "sources")}
    folder = outcome.resolved.export_url or str(outcome.resolved.export_folder)
    return {"folder": folder, "shards": len(outcome.manifest["shards"]), **facts}
