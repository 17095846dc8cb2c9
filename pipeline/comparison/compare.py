"""One run of a comparison: score, fold the rules that are no selectors, let every selector choose, measure, train."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.cluster import Cluster
from pipeline.comparison.contest import Choice, Contest, hold
from pipeline.comparison.measures import VERSION, measure
from pipeline.fingerprints import fingerprint, rounded
from pipeline.ledger import make_ledger
from pipeline.proof import arm, refuse_few_seeds, settings, train_arms
from pipeline.resolve import Resolved
from pipeline.run import Clock, Outcome, begin, record
from pipeline.score import Progress
from pipeline.sidecars import read_json, write_json, write_table
from schemas.errors import RecipeError
from schemas.tables import CHOICES
from stages.rule import scores_told
from stages.selector import Selector


def compare_selectors(
    resolved: Resolved,
    cluster: Cluster,
    *,
    train: bool = False,
    progress: Progress = lambda *_: None,
    verify: bool = False,
) -> Outcome:
    """Hold the recipe's selectors side by side; with `train` also by what a connector learns from each choice.

    Rules of `select` that are no selectors are applied first, wherever they stand; the selectors among them are left
    to `cuvee run`. Selectors learn anew, also where the recipe pins fits: what is compared is how they choose here.

    Raises:
        RecipeError: no `compare` section, or a `train` section that is missing or too small for `train`.
        CuveeError: with what was found and what to do.
    """
    _refuse(resolved, train)
    clock = Clock()
    outcome = begin(resolved, cluster, clock, lambda rule: not isinstance(rule, Selector), progress, verify=verify)
    contest: Contest = clock.timed("compare", lambda: hold(outcome.chosen, progress))
    measured, clock.reused["measure"] = clock.timed("measure", lambda: _measured(contest))
    training = None
    if train:
        training, clock.reused["train"] = clock.timed("train", lambda: _trained(contest, cluster, progress))
    outcome.comparison = _told(outcome, contest, measured, training)
    outcome.ledger = make_ledger(outcome.chosen, None)
    _store(contest, outcome.comparison, outcome.folder)
    record(outcome, clock, "compare", cluster.started)
    return outcome


def _refuse(resolved: Resolved, train: bool) -> None:
    if not resolved.contenders:
        raise RecipeError(
            "the recipe has no `compare` section; name a budget and selectors, e.g. "
            "`compare: {samples: 1000, selectors: [{kind: dsir}]}`"
        )
    if not train:
        return
    if resolved.recipe.train is None:
        raise RecipeError("--train needs a `train` section in the recipe: models, steps, seeds")
    refuse_few_seeds(settings(resolved), "selectors")


def _measured(contest: Contest) -> tuple[dict[str, Any], bool]:
    address = fingerprint([VERSION, contest.chosen.chain, contest.named_addresses(), contest.budget.facts()])
    path = contest.chosen.table.resolved.workspace.fit(f"compare-{address}") / "measures.json"
    if not (reused := path.exists()):
        write_json(rounded(measure(contest)), path)
    return read_json(path), reused


def _trained(contest: Contest, cluster: Cluster, progress: Progress) -> tuple[dict[str, Any], bool]:
    """One arm per selector, each row once; all are held against the random one."""
    once = contest.chosen.survivors.select("uid", pl.lit(1, pl.Int32).alias("repeats"))
    arms = {
        choice.name: arm(contest.chosen, once.filter(pl.Series(choice.kept)), choice.name) for choice in contest.choices
    }
    return train_arms(contest.chosen, arms, cluster, progress, against=contest.chance)


def _told(
    outcome: Outcome, contest: Contest, measured: dict[str, Any], training: dict[str, Any] | None
) -> dict[str, Any]:
    """What compare.json holds."""
    measures = measured.pop("measures")
    lines = {choice.name: {**_line(outcome, choice), **measures[choice.name]} for choice in contest.choices}
    weighing = [choice.name for choice in contest.choices if choice.decision.verdict.weights is not None]
    notes = [f"compare: {name!r} weighs rows; here each kept row counts once" for name in weighing]
    facts = {
        "recipe": outcome.resolved.recipe.name,
        "run": outcome.name,
        "budget": contest.budget.facts(),
        "survivors": len(contest.tokens),
        "chance": contest.chance,
        "selectors": lines,
        "training": training,
        **measured,
        "notes": measured["notes"] + notes,
    }
    told: dict[str, Any] = rounded(facts)
    return told


def _line(outcome: Outcome, choice: Choice) -> dict[str, Any]:
    settings = choice.selector.model_dump(mode="json", exclude_none=True)
    reasons = choice.decision.verdict.dropped.group_by("reason").len().sort("reason")
    return {
        "kind": settings.pop("kind"),
        "settings": settings,
        "folder": f"fits/{choice.selector.kind}-{choice.address}",
        "not_kept": dict(reasons.iter_rows()),
        "seconds": choice.decision.judging,
        "reused": choice.decision.reused,
        "evidence": choice.decision.verdict.evidence,
    }


def _store(contest: Contest, comparison: dict[str, Any], folder: Path) -> None:
    rows = contest.chosen.survivors.select("uid", "source")
    for choice in contest.choices:
        verdict = choice.decision.verdict
        lines = rows.with_columns(pl.Series("kept", choice.kept))
        lines = lines.join(verdict.dropped.select("uid", "reason"), on="uid", how="left")
        lines = lines.join(scores_told(verdict), on="uid", how="left").sort("uid")
        write_table(lines.to_arrow().cast(CHOICES), folder / "choices" / f"{choice.name}.parquet")
    write_json(comparison, folder / "compare.json")
