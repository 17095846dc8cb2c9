"""The select fold: rules over the score table, one after the other, each remembered under the address of its chain."""

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.fingerprints import fingerprint, rounded
from pipeline.fits import Pin, fit_line, write_fit
from pipeline.holdout import HELD_OUT_SHARE, MATCH_DISTANCE, held_out, matching
from pipeline.sidecars import read_json, write_json
from pipeline.table import ScoreTable
from pipeline.tasks import Stream, listed
from schemas.errors import ContractError, CuveeError
from schemas.tables import POOL_ROLE, REFERENCE_ROLE, TARGET_ROLE
from stages.rule import DRAWN_SCHEMA, DROPPED_SCHEMA, SCORES_SCHEMA, Context, Rule, Verdict, drop_lines

ROWS_PER_PART = 1_000_000
"""A pool of more rows is judged in parts of whole shards, on the cluster."""
VERDICT_FORMAT = 3
"""Of what lies in fits/; another one is decided anew."""


@dataclass(frozen=True)
class Decision:
    """What one step of the fold did to the rows that were still there."""

    name: str
    """What the ledger calls it as `decided_by`: see `step_names`; of a comparison, the selector's."""
    kind: str
    verdict: Verdict
    n_in: int
    seconds: float = 0.0
    reused: bool = False
    fit: dict[str, Any] | None = None
    """Where its fit lies, for run.json; None for a rule that learns nothing."""
    merges_captions: bool = False
    """The captions of what it dropped go to `duplicate_of`."""
    rule: Rule | None = None
    """Which; None for the held-out part."""
    number: int | None = None
    """Its place among the recipe's rules, from 1; None for what is none of them."""
    judging: float | None = None
    """Seconds of judging, in the run that did it; None where none was noted."""

    @property
    def title(self) -> str:
        """Its name behind its place: `3. semdedup`."""
        return f"{self.number}. {self.name}" if self.number else self.name

    @property
    def n_kept(self) -> int:
        """Rows still there after it."""
        return self.n_in - len(self.verdict.dropped)


@dataclass
class Selected:
    """The fold's outcome."""

    table: ScoreTable
    quarantined: pl.DataFrame
    """(uid, decided_by, reason), of every role."""
    held: pl.DataFrame
    """(uid) of the held-out pairs."""
    target: pl.DataFrame
    """(uid) of the target rows that rules and mixer may see."""
    decisions: list[Decision]
    survivors: pl.DataFrame
    """(uid, source, weight) in uid order."""
    chain: str
    """Address of everything decided so far."""
    references: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Name -> (uid) of that set's usable samples."""
    stream: Stream = map
    """Where the parts of a large pool are judged."""
    notes: list[str] = field(default_factory=list)


def select(
    table: ScoreTable,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    *,
    takes: Callable[[Rule], bool] = lambda _: True,
    stream: Stream = map,
) -> Selected:
    """Quarantine, hold out, then fold the rules that `takes` says yes to.

    `stream` does pieces of work on a cluster; it is used where the pool is too large to be judged as a whole.

    Raises:
        CuveeError: nothing is left to select from, or a rule wants more than there is.
    """
    resolved = table.resolved
    quarantined = _quarantined(table)
    sound = table.samples.join(quarantined, on="uid", how="anti")
    held = held_out(table, sound)
    target = sound.filter(pl.col("role") == TARGET_ROLE).join(held, on="uid", how="anti").select("uid")
    alive = sound.filter(pl.col("role") == POOL_ROLE).select("uid", "source", pl.lit(1.0).alias("weight"))
    _refuse_empty(table, alive, target, held)
    others = sound.filter(pl.col("role") == REFERENCE_ROLE)
    references = {name: others.filter(pl.col("source") == name).select("uid") for name in resolved.recipe.references}
    chosen = Selected(table, quarantined, held, target, [], alive, _origin(table), references=references, stream=stream)
    if len(held):
        _hold_out(chosen, sound)
    for number, (rule, name) in enumerate(zip(resolved.rules, resolved.rule_names, strict=True)):
        if not takes(rule):
            continue
        progress(f"rule {name}", number, len(resolved.rules))
        _apply(chosen, rule, number)
    return chosen


def _quarantined(table: ScoreTable) -> pl.DataFrame:
    """Rows no rule may see: ingest's reasons first, then those of each stage that is not optional, in recipe order."""
    strict = [stage for stage in table.resolved.stages if not stage.optional]
    found = [
        table.samples.filter(pl.col("index_reason").is_not_null()).select(
            "uid", pl.lit("ingest").alias("decided_by"), pl.col("index_reason").alias("reason")
        )
    ]
    for stage in strict:
        column = stage.reason_column().name
        for role in table.samples["role"].unique().sort():
            rows = table.scores(role, [column]).filter(pl.col(column).is_not_null())
            found.append(
                rows.select("uid", pl.lit(stage.name).alias("decided_by"), pl.col(column).alias("reason")).collect()
            )
    return pl.concat(found).unique("uid", keep="first", maintain_order=True).sort("uid")


def _refuse_empty(table: ScoreTable, alive: pl.DataFrame, target: pl.DataFrame, held: pl.DataFrame) -> None:
    recipe = table.resolved.recipe
    if alive.is_empty():
        raise CuveeError(f"the pool is empty: of {table.counted()} samples none can be used: {_why(table, POOL_ROLE)}")
    if recipe.target is not None and target.is_empty():
        raise CuveeError(f"the target has no usable sample: {_why(table, TARGET_ROLE)}")
    if recipe.train is not None and held.is_empty():
        raise CuveeError("no held-out pair to train against; name more target or `train.eval` shards")


def _why(table: ScoreTable, role: str) -> str:
    """The most frequent reasons of a role's unusable samples."""
    rows = table.samples.filter(pl.col("role") == role).join(_quarantined(table), on="uid")
    reasons = dict(rows.group_by("reason").len().sort("len", "reason", descending=[True, False]).head(3).iter_rows())
    shards = sorted({str(s.reason) for s in table.shards if s.input.role == role and s.digest is None})
    return (
        ", ".join([*(f"{count} {reason}" for reason, count in reasons.items()), *shards]) or "its shards hold nothing"
    )


def _origin(table: ScoreTable) -> str:
    recipe = table.resolved.recipe
    roles = sorted({shard.input.role for shard in table.shards})
    facts = {
        "pool": {role: table.pool_fingerprint(role) for role in roles},
        "scores": table.resolved.addresses,
        "optional": sorted(stage.name for stage in table.resolved.stages if stage.optional),
        "seed": recipe.seed,
        "format": VERDICT_FORMAT,
        "held_out": [recipe.train is not None, HELD_OUT_SHARE, MATCH_DISTANCE],
    }
    return fingerprint(facts)


def _hold_out(chosen: Selected, sound: pl.DataFrame) -> None:
    began = time.perf_counter()
    matches = matching(chosen.table, sound, chosen.held)
    evidence = {"held_out": len(chosen.held), "matches": len(matches)}
    verdict = Verdict(drop_lines(matches, "matches_eval"), evidence=evidence)
    decision = Decision("holdout", "holdout", verdict, len(chosen.survivors), time.perf_counter() - began)
    _fold(chosen, decision)


def _apply(chosen: Selected, rule: Rule, number: int) -> None:
    resolved = chosen.table.resolved
    pin = resolved.pins.rules[number] if resolved.pins else None
    chosen.chain = after(chosen, rule, *([pin.sha256] if pin else []))
    decision = replace(decide(chosen, rule, resolved.rule_names[number], chosen.chain, pin), number=number + 1)
    if decision.fit and resolved.pins and pin is None:
        chosen.notes.append(resolved.pins.refitted(decision.title))
    _fold(chosen, decision)


def after(chosen: Selected, rule: Rule, *more: object) -> str:
    """Address of what a rule decides about the survivors, and of whatever else that depends on."""
    return fingerprint([chosen.chain, chosen.table.resolved.method_identity(rule), *more])


def decide(
    chosen: Selected, rule: Rule, name: str, address: str, pin: Pin | None = None, seed: int | None = None
) -> Decision:
    """What a rule does to the survivors, which stay as they are: remembered under `address`, or judged now.

    Args:
        chosen: where the fold stands.
        rule: which.
        name: what the decision is called.
        address: see `after`.
        pin: what it is to decide with.
        seed: default: the recipe's.
    """
    resolved = chosen.table.resolved
    folder = resolved.workspace.fit(f"{rule.kind}-{address}")
    began = time.perf_counter()
    reused = folder.exists()
    if not reused:
        verdict = _judged(chosen, rule, pin, resolved.recipe.seed if seed is None else seed)
        write_verdict(verdict, folder)
        write_json({"seconds": round(time.perf_counter() - began, 6)}, resolved.workspace.timing(folder.name))
    fit = fit_line(folder, resolved.fit_key(rule), pin)
    facts = len(chosen.survivors), time.perf_counter() - began, reused, fit, rule.merges_captions()
    judging = _judging(resolved.workspace.timing(folder.name))
    return Decision(name, rule.kind, read_verdict(folder), *facts, rule, judging=judging)


def _judged(chosen: Selected, rule: Rule, pin: Pin | None, seed: int) -> Verdict:
    table, columns = chosen.table, rule.columns()
    target = None
    if table.resolved.recipe.target is not None and rule.needs_target():
        target = only(table.scores(TARGET_ROLE, columns), chosen.target)
    references = {name: _reference(chosen, name, columns) for name in rule.needs_references()}
    rows, parts = survivors(chosen, columns)
    try:
        fit = pin.read() if pin else None
        context = Context(seed, target, fit, references, parts, listed(chosen.stream if parts else map))
        verdict = rule.judge(rows, context)
    except CuveeError as error:
        raise type(error)(f"rule {rule.kind!r}: {error}") from error
    _check(rule, verdict, chosen.survivors)
    if context.fit is None:
        return verdict
    if verdict.fit != context.fit:
        raise ContractError(f"rule {rule.kind!r} was given a pinned fit and returned another")
    return replace(verdict, evidence={**verdict.evidence, "pinned": True})


def survivors(
    chosen: Selected, columns: Sequence[str], beside: pl.DataFrame | None = None
) -> tuple[pl.LazyFrame, tuple[pl.LazyFrame, ...]]:
    """(uid, source, *columns) of the rows still there, in uid order, and of a large pool once more in parts.

    A part travels with the uids of its own rows alone. `beside` holds further columns, with the uids of all survivors.
    """
    table, alive = chosen.table, chosen.survivors.select("uid") if beside is None else beside
    parts = _parts(table, len(alive))
    own = (alive.join(table.lines_of(POOL_ROLE, part), on="uid", how="semi") for part in parts)
    cut = tuple(only(table.scores(POOL_ROLE, columns, part), uids) for part, uids in zip(parts, own, strict=True))
    return only(table.scores(POOL_ROLE, columns), alive), cut


def only(scores: pl.LazyFrame, uids: pl.DataFrame) -> pl.LazyFrame:
    """The rows of these samples, with what else `uids` holds, in uid order."""
    return scores.join(uids.lazy(), on="uid", how="inner").sort("uid")


def _reference(chosen: Selected, name: str, columns: Sequence[str]) -> pl.LazyFrame:
    if chosen.references[name].is_empty():
        raise CuveeError(f"reference {name!r} has no usable sample: {_why(chosen.table, REFERENCE_ROLE)}")
    return only(chosen.table.scores(REFERENCE_ROLE, columns), chosen.references[name])


def _parts(table: ScoreTable, alive: int) -> list[slice]:
    """Runs of shards of about `ROWS_PER_PART` rows; none where all that are alive fit into one."""
    if alive <= ROWS_PER_PART:
        return []
    ends = np.cumsum([shard.samples for shard in table.of_role(POOL_ROLE)])
    number = (ends - 1) // ROWS_PER_PART
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(ends)]
    return [slice(begin, end) for begin, end in pairwise(edges)]


def _check(rule: Rule, verdict: Verdict, survivors: pl.DataFrame) -> None:
    dropped = verdict.dropped
    if dict(dropped.schema) != DROPPED_SCHEMA:
        raise ContractError(f"rule {rule.kind!r} returned dropped rows as {dropped.schema}; expected {DROPPED_SCHEMA}")
    if dropped["uid"].n_unique() != len(dropped) or dropped["reason"].null_count():
        raise ContractError(f"rule {rule.kind!r} dropped a row twice or without a reason")
    if strangers := len(dropped.join(survivors, on="uid", how="anti")):
        raise ContractError(f"rule {rule.kind!r} dropped {strangers} rows that were not there")
    if (scores := verdict.scores) is not None and dict(scores.schema) not in (SCORES_SCHEMA, DRAWN_SCHEMA):
        raise ContractError(f"rule {rule.kind!r} returned scores as {scores.schema}; expected {DRAWN_SCHEMA}")
    if (weights := verdict.weights) is not None:
        if not (weights["weight"].is_finite() & (weights["weight"] > 0)).all():
            raise ContractError(f"rule {rule.kind!r} gave a weight that is not above 0; drop the row instead")
        if weights["uid"].n_unique() != len(weights) or len(weights.join(survivors, on="uid", how="anti")):
            raise ContractError(f"rule {rule.kind!r} weighed a row twice, or one that was not there")


def _fold(chosen: Selected, decision: Decision) -> None:
    chosen.decisions.append(decision)
    left = chosen.survivors.join(decision.verdict.dropped.select("uid"), on="uid", how="anti")
    if (weights := decision.verdict.weights) is not None:
        factors = weights.select("uid", pl.col("weight").alias("factor"))
        left = left.join(factors, on="uid", how="left").with_columns(
            (pl.col("weight") * pl.col("factor").fill_null(1.0)).alias("weight")
        )
        left = left.drop("factor")
    chosen.survivors = left.sort("uid")
    if left.is_empty():
        reasons = decision.verdict.dropped.group_by("reason").len().sort("len", "reason", descending=[True, False])
        told = ", ".join(f"{count} as {reason}" for reason, count in reasons.head(3).iter_rows())
        raise CuveeError(
            f"{decision.title} leaves nothing of {decision.n_in} samples: {told}; loosen it or the rules before it"
        )


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """Store a verdict as a folder that appears whole."""
    temporary = folder.parent / f".writing-{folder.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    verdict.dropped.sort("uid").write_parquet(temporary / "dropped.parquet")
    if verdict.weights is not None:
        verdict.weights.sort("uid").write_parquet(temporary / "weights.parquet")
    if verdict.scores is not None:
        verdict.scores.sort("uid").write_parquet(temporary / "scores.parquet")
    write_json(rounded(verdict.evidence), temporary / "evidence.json")
    if verdict.fit is not None:
        write_fit(verdict.fit, temporary)
    try:
        temporary.rename(folder)
    except OSError:  # another run stored the same verdict first
        shutil.rmtree(temporary)


def read_verdict(folder: Path) -> Verdict:
    """The inverse of `write_verdict`; the fit stays on disk."""
    named = (folder / "weights.parquet", folder / "scores.parquet")
    weights, scores = (pl.read_parquet(path) if path.exists() else None for path in named)
    evidence: dict[str, Any] = read_json(folder / "evidence.json")
    return Verdict(pl.read_parquet(folder / "dropped.parquet"), weights, scores, evidence)


def _judging(path: Path) -> float | None:
    return float(read_json(path)["seconds"]) if path.exists() else None
