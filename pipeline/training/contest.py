"""`cuvee train --compare`: a connector for each of several finished selections, at one budget, from the same starts.

One recipe's `train` section gives models, budget, seeds and rates, and its held-out pairs judge all. Samples that show
a held-out image are left out of every arm. Compared are final metrics alone, as paired differences from the first
selection over three seeds or more, beside what each selection cost to make (arXiv:2307.06440, whose protocol this is).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.fingerprints import fingerprint, rounded
from pipeline.holdout import held_out
from pipeline.proof import pairs_of, refuse_few_seeds, settings
from pipeline.report import write_report
from pipeline.resolve import Resolved, resolve
from pipeline.score import Progress, score
from pipeline.select import Selected
from pipeline.sidecars import machine_facts, read_json, write_json
from pipeline.table import ScoreTable
from pipeline.train import Arm, compare
from pipeline.training.cards import write_cards
from pipeline.training.contestants import Contestant, contestants
from pipeline.training.costs import costs
from pipeline.training.overlap import Arms, overlaps
from pipeline.training.present import contest_view
from schemas.errors import RecipeError
from schemas.tables import EVAL_ROLE, TARGET_ROLE
from stages.train.settings import TrainSettings

FACTS, RESULT, REPORT = "contest.json", "result.json", "report.html"
VERSION = 1
"""Raise it when the same selections are compared otherwise."""


@dataclass(frozen=True)
class Contest:
    """What is compared, before anything is computed."""

    found: tuple[Contestant, ...]
    judge: Resolved
    """The recipe that gives settings and held-out pairs."""
    settings: TrainSettings
    notes: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The workspace that holds the outcome."""
        return self.judge.workspace.root


def contest(named: Sequence[str], recipe: Path | None) -> Contest:
    """What was named, checked.

    Args:
        named: see `contestants`.
        recipe: whose `train` section and held-out pairs count; default: the first named run's recipe.

    Raises:
        RecipeError: fewer than two selections, fewer than three seeds, no recipe, or a budget in epochs.
    """
    if len(named) < 2:
        raise RecipeError(f"found {len(named)} selection, expected two or more: `cuvee train --compare A B`")
    found = contestants(named)
    judge = resolve(recipe, models=False) if recipe else None
    if judge is None:
        judge = next((each.resolved for each in found if each.resolved and each.resolved.recipe.train), None)
    if judge is None or judge.recipe.train is None:
        raise RecipeError("none of the runs named has a `train` section; say which recipe judges: `--recipe RECIPE`")
    given, notes = settings(judge), []
    refuse_few_seeds(given, "selections")
    if given.budget.epochs is not None:
        raise RecipeError("`train.budget` counts epochs, which last longer on larger selections; name samples or steps")
    if given.schedule is not None:
        given = given.model_copy(update={"schedule": None})
        notes.append("`train.schedule` is left out: it would steer one arm and not the others")
    return Contest(tuple(found), judge, given, tuple(notes))


def hold_contest(
    asked: Contest, out: Path | None, cluster: Cluster, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Train what is missing and say how the selections compare; `contest.json` and a report stand in their folder.

    Args:
        asked: what is compared.
        out: where the outcome goes; default: a folder of the judging workspace's `contests/`.
        cluster: where to look for overlaps and to train.
        progress: called after each job.

    Raises:
        CuveeError: a selection without a sample, held-out pairs that are missing, or what training raises.
    """
    held = held_out_pairs(asked.judge, cluster, progress)
    seed, first = asked.judge.recipe.seed, asked.found[0].name
    selections = {each.name: each.address for each in asked.found}
    facts = [VERSION, selections, asked.settings.identity(), held["key"].to_pylist(), seed]
    folder = out or asked.root / "contests" / fingerprint(facts)
    result = folder / RESULT
    if not result.exists() or read_json(result)["address"] != fingerprint(facts):
        dropped = overlaps(asked.found, held, cluster)
        arms = [Arm(each.name, pairs=Arms(each.readers, frozenset(dropped[each.name]))) for each in asked.found]
        features = asked.judge.workspace.fit("visual-tokens")
        trained = compare(
            asked.settings, arms, held, folder, seed=seed, cluster=cluster, against=first, features=features,
            progress=progress,
        )  # fmt: skip
        write_cards(folder, asked.settings, selections, trained)
        counts = {name: len(keys) for name, keys in dropped.items()}
        write_json(rounded({"address": fingerprint(facts), "dropped": counts, "training": trained}), result)
    told = _told(asked, read_json(result), folder)
    write_json(told, folder / FACTS)
    images = dict(zip(held["key"].to_pylist(), held["image"].to_pylist(), strict=True))
    write_report(contest_view(told, images), folder / REPORT)
    return told


def held_out_pairs(judge: Resolved, cluster: Cluster, progress: Progress = lambda *_: None) -> pa.Table:
    """(key, image, caption) that the recipe holds out: its `train.eval`, or a fifth of its target; only these are read.

    Raises:
        RecipeError: there is none.
    """
    few = tuple(item for item in judge.inputs if item.role in (TARGET_ROLE, EVAL_ROLE))
    bare = replace(judge, inputs=few, stages=(), asked={}, addresses={})
    table = ScoreTable(bare, tuple(score(bare, cluster, progress).shards))
    sound = table.samples.filter(pl.col("index_reason").is_null())
    held = held_out(table, sound)
    if held.is_empty():
        raise RecipeError(f"recipe {judge.recipe.name!r} holds no pair out; name `train.eval`, or a larger target")
    nobody = sound.head(0).select("uid")
    return pairs_of(Selected(table, nobody, held, nobody, [], nobody, ""), held)


def _told(asked: Contest, made: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What contest.json holds; all but `machine` is the same every time."""
    paid, judge = costs(asked.found), asked.judge
    arms = {each.name: made["training"]["arms"][each.name] for each in asked.found}  # in the order they were named
    selections = {
        each.name: {
            "place": each.named,
            "address": each.address,
            "run": each.record["run"] if each.record else None,
            "recipe": each.record["recipe"]["name"] if each.record else None,
            "matches_held_out": made["dropped"][each.name],
            "cost": paid[each.name],
        }
        for each in asked.found
    }
    told: dict[str, Any] = rounded(
        {
            "judge": {"recipe": judge.recipe.name, "folder": str(judge.folder), "seed": judge.recipe.seed},
            "against": asked.found[0].name,
            "selections": selections,
            "training": {**made["training"], "arms": arms},
            "notes": list(asked.notes),
            "folder": str(folder),
            "report": str(folder / REPORT),
            "machine": machine_facts(),
        }
    )
    return told
