"""Fills the report from a finished run: which numbers, which pictures. The page itself is `pipeline.report`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from pipeline.comparison.present import choices_accounted_for, comparison_view
from pipeline.rankings import ranking_views
from pipeline.report import write_report
from pipeline.report.trials_view import trials_view
from pipeline.report.view import (
    DISTANCE,
    Card,
    Check,
    DuplicateGroup,
    GalleryGroup,
    MixtureView,
    NamesView,
    ReportView,
    ScoreView,
    SourceShare,
    SourceWorth,
    StageTiming,
    StatusCount,
    Step,
    Threshold,
    TrainingView,
)
from pipeline.run import Outcome
from pipeline.shards import read_images
from pipeline.sidecars import read_table
from pipeline.table import lines
from pipeline.training.present import METRICS, captioned, training_view
from schemas.columns import meaning
from schemas.errors import ShardError
from schemas.tables import DROPPED, KEPT, POOL_ROLE, QUARANTINED
from stages.noise import uniform_noise

CARDS = 16
"""Samples shown per reason."""
GROUPS = 8
"""Duplicate groups shown."""
CARD_SCORES = 4
"""Scores that stand under a sample's picture."""
MOST_NAMES = 60
"""A column with more different names is not told name by name."""
HISTOGRAM_ROWS = 200_000
"""Rows a histogram is drawn from: those with the smallest hash beyond that."""


def present(outcome: Outcome, checks: Sequence[Check] = (), notes: Sequence[str] = ()) -> None:
    """Write `report.html` into the run's folder."""
    write_report(view(outcome, checks, notes), outcome.folder / "report.html")


def view(outcome: Outcome, checks: Sequence[Check] = (), notes: Sequence[str] = ()) -> ReportView:
    """Everything the report shows of a run."""
    record = outcome.record
    pool = outcome.ledger.filter(pl.col("role") == POOL_ROLE)
    pictures = Pictures(outcome, pool)
    return ReportView(
        title=outcome.resolved.recipe.name,
        run=outcome.name,
        counted=sum(_lines(outcome)),
        status_counts=tuple(_status_counts(pool)),
        funnel=tuple(_funnel(outcome, pool)),
        scores=tuple(_scores(outcome)),
        names=tuple(_names(outcome)),
        rankings=tuple(ranking_views(outcome.chosen.decisions)),
        gallery=tuple(_gallery(pool, pictures)),
        duplicates=tuple(_duplicates(pool, pictures)),
        mixture=_mixture(outcome),
        trials=trials_view(outcome.blend.mixture) if outcome.blend and outcome.blend.mixture else None,
        exported=record["export"]["samples"] if record["export"] else None,
        training=_training(record["training"], pictures),
        comparison=comparison_view(outcome.comparison, METRICS) if outcome.comparison else None,
        stages=tuple(_timings(outcome)),
        checks=(_conservation(pool), *choices_accounted_for(outcome.comparison), *checks),
        notes=(*record["notes"], *notes),
        facts=_facts(record),
        recipe_yaml=yaml.safe_dump(record["recipe"], sort_keys=False),
    )


def _lines(outcome: Outcome) -> Iterable[int]:
    table = outcome.chosen.table
    return (lines(shard) for shard in table.shards if shard.input.role == POOL_ROLE)


def _status_counts(pool: pl.DataFrame) -> Iterable[StatusCount]:
    by = ["source", "status", "reason", "decided_by"]
    counts = pool.with_columns(pl.col("decided_by").fill_null("")).group_by(by).len().sort(by)
    return (
        StatusCount(source, status, reason, count, step) for source, status, reason, step, count in counts.iter_rows()
    )


def _funnel(outcome: Outcome, pool: pl.DataFrame) -> Iterable[Step]:
    bad = pool.filter(pl.col("status") == QUARANTINED)
    reasons = dict(bad.group_by("reason").len().sort("reason").iter_rows())
    sound = len(pool) - len(bad)
    yield Step("ingest and scores", len(pool), sound, reasons, name="quarantine", status="quarantined")
    for line in outcome.record["steps"]:
        yield Step(
            line["kind"],
            line["in"],
            line["kept"],
            line["dropped"],
            line["seconds"],
            line["name"],
            evidence=line["evidence"],
        )
    if outcome.blend is not None:
        idle = int((outcome.blend.draws["repeats"] == 0).sum())
        total = len(outcome.blend.draws)
        dropped = {"not_drawn": idle} if idle else {}
        yield Step("mix", total, total - idle, dropped, outcome.blend.seconds, "mixture draw")


def _written(outcome: Outcome) -> Iterable[pa.Field]:
    return (field for stage in outcome.resolved.stages for field in stage.writes)


def _is_number(field: pa.Field) -> bool:
    return bool(pa.types.is_floating(field.type) or pa.types.is_signed_integer(field.type))


def _is_name(field: pa.Field) -> bool:
    named = field.type in (pa.string(), pa.bool_(), pa.list_(pa.string()))
    return named and b"free_text" not in (field.metadata or {})


def _names(outcome: Outcome) -> Iterable[NamesView]:
    """Columns of kinds, labels, flags; not those whose names are too many to be kinds of anything."""
    table = outcome.chosen.table
    for field in filter(_is_name, _written(outcome)):
        name = pl.col(field.name)
        if pa.types.is_list(field.type):
            name = pl.when(name.list.len() == 0).then(pl.lit(["none"])).otherwise(name)
        rows = table.scores(POOL_ROLE, [field.name]).select("source", name.alias("name"))
        totals = dict(rows.group_by("source").len().collect().iter_rows())
        single = rows.explode("name") if pa.types.is_list(field.type) else rows
        found = single.group_by("source", pl.col("name").cast(pl.String)).len().sort("source", "name").collect()
        if found["name"].n_unique() <= MOST_NAMES:
            counts: dict[str, dict[str | None, int]] = {}
            for source, value, count in found.iter_rows():
                counts.setdefault(source, {})[value] = count
            yield NamesView(field.name, counts, totals, meaning(field))


def _scores(outcome: Outcome) -> Iterable[ScoreView]:
    numeric = list(filter(_is_number, _written(outcome)))
    if not numeric:
        return
    names = [field.name for field in numeric]
    table = outcome.chosen.table
    rows = table.scores(POOL_ROLE, names).collect().sort("uid")
    if len(rows) > HISTOGRAM_ROWS:
        noise = uniform_noise(rows["uid"].to_list(), 0, "histogram")
        rows = rows.with_columns(pl.Series("noise", noise)).sort("noise").head(HISTOGRAM_ROWS)
    for field in numeric:
        values = {
            str(source[0]): part[field.name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for source, part in sorted(rows.partition_by("source", as_dict=True).items())
        }
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        yield ScoreView(field.name, values, meaning(field), unit, tuple(_thresholds(outcome, field.name)))


def _thresholds(outcome: Outcome, column: str) -> Iterable[Threshold]:
    for line in outcome.record["steps"]:
        evidence = line["evidence"]
        if evidence.get("column") == column:
            keeps = "at_most" if line["kind"] == "at_most" else "at_least"
            for source, value in evidence.get("thresholds", {}).items():
                yield Threshold(value, keeps, source or None)  # type: ignore[arg-type]


class Pictures:
    """Reads the few samples that are shown."""

    def __init__(self, outcome: Outcome, pool: pl.DataFrame) -> None:
        self.outcome = outcome
        self.shards = {(s.input.source, s.input.container.path): s for s in outcome.chosen.table.shards}
        self.columns = _told_of_samples(outcome)
        resolved = outcome.resolved
        named = zip(resolved.rule_names, resolved.rules, strict=True)
        self.silent = {name for name, rule in named if not rule.quotes_captions}
        """Steps whose dropped samples are shown without captions, wherever they are shown."""
        self.pool = pool

    def cards(self, rows: pl.DataFrame, notes: dict[str, str] | None = None) -> dict[str, Card]:
        """uid -> card of these ledger lines."""
        cards: dict[str, Card] = {}
        for (source, shard), part in rows.partition_by("source", "shard", as_dict=True, maintain_order=True).items():
            cards |= self._of_shard(str(source), str(shard), part.sort("row"), notes or {})
        return cards

    def _of_shard(self, source: str, path: str, part: pl.DataFrame, notes: dict[str, str]) -> dict[str, Card]:
        shard = self.shards[source, path]
        if shard.digest is None:
            return {}
        workspace = self.outcome.resolved.workspace
        index = read_table(workspace.sidecar(shard.input.index_address, shard.digest))
        lines = index.take(pa.array(part["row"].to_numpy()))
        try:
            images = read_images(shard.input.container, lines).to_pylist()
        except ShardError:  # the shard has gone since; the report still tells its story
            images = [None] * len(lines)
        scores = self._scores(shard, part)
        captions = lines["caption"].to_pylist()
        facts = zip(part.iter_rows(named=True), images, captions, scores, strict=True)
        cards = {}
        for line, image, caption, values in facts:
            told = [notes[line["uid"]]] if line["uid"] in notes else []
            if line["decided_by"] in self.silent:
                caption, told = None, [*told, "caption not shown"]
            cards[line["uid"]] = Card(line["key"] or "", line["uid"], source, image, caption, values, ", ".join(told))
        return cards

    def _scores(self, shard: Any, part: pl.DataFrame) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{} for _ in range(len(part))]
        for stage in self.outcome.resolved.stages:
            names = [field.name for field in stage.writes if field.name in self.columns]
            if not names:
                continue
            resolved = self.outcome.resolved
            path = resolved.workspace.sidecar(resolved.address(stage.name, shard.input.source), shard.digest)
            values = pl.read_parquet(path, columns=names)[part["row"].to_list()]
            for line, row in zip(found, values.iter_rows(named=True), strict=True):
                line |= {name: float(value) for name, value in row.items() if value is not None}
        return [{name: line[name] for name in self.columns if name in line} for line in found]


def _told_of_samples(outcome: Outcome) -> list[str]:
    """The first numbers that rules read or the export takes along; the first there are, where none does."""
    numbers = [field.name for field in _written(outcome) if _is_number(field)]
    export = outcome.resolved.recipe.export
    asked = [
        *(column for rule in outcome.resolved.rules for column in rule.columns()),
        *(export.columns if export else ()),
    ]
    return [name for name in dict.fromkeys(asked) if name in numbers][:CARD_SCORES] or numbers[:CARD_SCORES]


def _gallery(pool: pl.DataFrame, pictures: Pictures) -> Iterable[GalleryGroup]:
    named = pool.filter(pl.col("uid").is_not_null()).with_columns(
        pl.col("reason").fill_null(KEPT).alias("title"), pl.col("decided_by").fill_null("")
    )
    order = {KEPT: 0, DROPPED: 1, QUARANTINED: 2}
    groups = named.group_by("status", "title", "decided_by").len().sort("title", "decided_by")
    for status, title, by, total in sorted(
        groups.iter_rows(), key=lambda group: (order[group[0]], -group[3], group[1])
    ):
        part = named.filter((pl.col("status") == status) & (pl.col("title") == title) & (pl.col("decided_by") == by))
        # An even sample by hash, so that the sheet is honest and the same every time.
        noise = uniform_noise(part["uid"].to_list(), 0, "contact sheet")
        shown = part.with_columns(pl.Series("noise", noise)).sort("noise").head(CARDS)
        cards = pictures.cards(shown)
        picked = tuple(cards[uid] for uid in shown["uid"] if uid in cards)
        yield GalleryGroup(title, total, picked, f"decided by {by}" if by else "", status)


def _duplicates(pool: pl.DataFrame, pictures: Pictures) -> Iterable[DuplicateGroup]:
    twins = pool.filter(pl.col("duplicate_of").is_not_null() & (pl.col("decided_by") != "holdout"))
    for step in twins["decided_by"].unique().sort():
        groups = twins.filter(pl.col("decided_by") == step).group_by("duplicate_of").agg(pl.col("uid").sort())
        groups = groups.with_columns(pl.col("uid").list.len().alias("n")).sort(
            "n", "duplicate_of", descending=[True, False]
        )
        # Half the largest groups, half from all over: the largest alone would only show one kind of mistake.
        shown = pl.concat([groups.head(GROUPS // 2), groups.sort("duplicate_of").head(GROUPS)])
        shown = shown.unique("duplicate_of", maintain_order=True).head(GROUPS)
        for survivor, others, size in shown.iter_rows():
            if (group := _group(str(step), [survivor, *others[:3]], size, pictures)) is not None:
                yield group


def _group(step: str, uids: list[str], others: int, pictures: Pictures) -> DuplicateGroup | None:
    """The first of these with those that left for it; of what is no pool sample, it is said where it stands."""
    lines = pictures.outcome.ledger.filter(pl.col("uid").is_in(uids))
    notes = {
        uid: f"similarity {value:.3g}" for uid, value in lines.select("uid", "similarity").drop_nulls().iter_rows()
    }
    first = lines.filter(pl.col("uid") == uids[0]).row(0, named=True)
    in_pool = first["role"] == POOL_ROLE
    cards = pictures.cards(lines, notes if in_pool else {**notes, uids[0]: f"of {first['source']}"})
    if uids[0] not in cards:
        return None
    rest = tuple(cards[uid] for uid in uids[1:] if uid in cards)
    left = f"left, too, by {first['decided_by']}: {first['reason']}" if first["status"] == DROPPED else "stays"
    mark = left if in_pool else "in a reference set"
    return DuplicateGroup(step, cards[uids[0]], rest, others + in_pool, mark)


def _mixture(outcome: Outcome) -> MixtureView | None:
    blend = outcome.blend
    if blend is None or blend.mixture is None:
        return None
    mixture = blend.mixture
    shares = tuple(
        SourceShare(source, interval=_interval(mixture["intervals"].get(source)), **parts)
        for source, parts in blend.shares.items()
    )
    mixer = outcome.resolved.mixer
    kind = mixer.kind if mixer else ""
    return MixtureView(
        shares,
        mixture["objective"],
        mixture["references"],
        kind,
        mixture["evidence"].get("objective_name", DISTANCE),
        tuple(mixture["binding"]),
        _worth(mixture["evidence"]),
    )


def _worth(evidence: dict[str, Any]) -> tuple[SourceWorth, ...]:
    """What each source buys, for mixers whose evidence has `marginal`."""
    marginal, tables = evidence.get("marginal") or {}, evidence.get("ranking") or {}
    alone = tables.get("alone") or evidence.get("alone") or {}
    order = sorted(marginal, key=lambda source: (alone.get(source, 0.0), source))
    lost, cosine, pairs = (tables.get(name, {}) for name in ("leave_one_out", "cosine", "pairs"))
    return tuple(
        SourceWorth(
            source,
            marginal[source],
            alone.get(source),
            lost.get(source),
            cosine.get(source),
            pairs.get(source, {}),
        )
        for source in order
    )


def _interval(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return (ends[0], ends[1]) if ends else None


def _training(training: dict[str, Any] | None, pictures: "Pictures") -> TrainingView | None:
    if training is None:
        return None
    held = pictures.outcome.ledger.filter(pl.col("uid").is_in(captioned(training)))
    return training_view(training, {uid: card.image for uid, card in pictures.cards(held).items()})


def _timings(outcome: Outcome) -> Iterable[StageTiming]:
    for line in outcome.record["stages"]:
        yield StageTiming(
            line["kind"],
            line["computed"],
            line["reused"],
            line["samples"],
            line["seconds"],
            line["samples_per_s"],
            _sidecar_bytes(outcome, line["kind"]),
        )


def _sidecar_bytes(outcome: Outcome, kind: str) -> int:
    total = 0
    resolved = outcome.resolved
    for shard in outcome.chosen.table.shards:
        address = shard.input.index_address if kind == "index" else resolved.address(kind, shard.input.source)
        if shard.digest is not None:
            total += resolved.workspace.sidecar(address, shard.digest).stat().st_size
    return total


def _conservation(pool: pl.DataFrame) -> Check:
    counts = {status: int((pool["status"] == status).sum()) for status in (KEPT, DROPPED, QUARANTINED)}
    text = f"{len(pool)} = " + " + ".join(f"{count} {status}" for status, count in counts.items())
    return Check(
        "every sample accounted for", text, "in = kept + dropped + quarantined", sum(counts.values()) == len(pool)
    )


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    libraries = ", ".join(f"{name} {version}" for name, version in record["libraries"].items())
    return {
        "recipe fingerprint": record["recipe_fingerprint"],
        "pool fingerprint": record["pool_fingerprint"],
        "seed": record["seed"],
        "finished": record["finished"],
        "python": record["python"],
        "processor": record["processor"],
        "libraries": libraries,
        "image bytes read": record["image_bytes_read"],
    }
