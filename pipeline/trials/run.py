"""One run of the trials: score, select, hold out, then every trial whose file is not there yet, and the table."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import Cluster
from pipeline.fingerprints import fingerprint, rounded
from pipeline.ledger import make_ledger
from pipeline.resolve import Resolved
from pipeline.run import Clock, Outcome, begin, record
from pipeline.score import Progress
from pipeline.sidecars import read_json, write_json
from pipeline.tasks import Task, run_tasks
from pipeline.trials.asked import Asked, asked
from pipeline.trials.pilot import VERSION, Bench, Trial
from pipeline.trials.plan import Plan, make_plan
from pipeline.trials.split import Split, hold_out
from stages.mixture.trials_table import TrialsTable, write_trials

TABLE, FACTS = "trials.parquet", "trials.json"


def run_trials(
    resolved: Resolved, cluster: Cluster, *, progress: Progress = lambda *_: None, verify: bool = False
) -> Outcome:
    """Run the recipe's trials; what is finished already is not run again, and what `mix` says is not read.

    Raises:
        RecipeError: see `asked`.
        CuveeError: with what was found and what to do.
    """
    made = asked(resolved)
    resolved = replace(resolved, mixer=None)  # nothing is mixed, and its table may be the one that is made here
    clock = Clock()
    outcome = begin(resolved, cluster, clock, lambda _: True, progress, verify=verify)
    split: Split = clock.timed("hold_out", lambda: hold_out(outcome.chosen, made.trials))
    data = _data(made, split)
    plan: Plan = clock.timed(
        "design", lambda: make_plan(made.trials, made.design, made.pilot, split, resolved.recipe.seed, data)
    )
    folder = resolved.workspace.trials(resolved.recipe.name)
    missing: int = clock.timed("trials", lambda: _run(made, split, plan, data, folder, cluster, progress))
    clock.reused["trials"] = not missing
    outcome.trials = _told(outcome, made, split, plan, folder) | {"computed": missing}
    outcome.ledger = make_ledger(outcome.chosen, None)
    record(outcome, clock, "trials", cluster.started)
    return outcome


def _data(made: Asked, split: Split) -> str:
    """Fingerprint of what all trials share."""
    samples = {
        part: {name: rows["uid"].to_list() for name, rows in frames.items()}
        for part, frames in (("drawn", split.drawn_from), ("held", split.held))
    }
    seed = split.chosen.table.resolved.recipe.seed
    return fingerprint([VERSION, made.pilot.kind, made.pilot.identity(split), samples, seed])


@dataclass(frozen=True)
class RunTrial:
    """What a worker does: train, measure, write the trial's file whole."""

    bench: Bench
    folder: str
    trials: dict[str, Trial]

    def open(self) -> Task:
        """Open the bench."""
        do = self.bench.open()

        def task(name: str) -> Iterator[str]:
            trial = self.trials[name]
            found = do(trial)
            facts = {**asdict(trial), "drawn": dict(found.drawn), "metrics": found.metrics}
            write_json(rounded(facts), job_file(Path(self.folder), trial))
            yield name

        return task


def job_file(folder: Path, trial: Trial) -> Path:
    """Where a finished trial's result lies."""
    return folder / "jobs" / f"{trial.name}-{trial.address}.json"


def _run(made: Asked, split: Split, plan: Plan, data: str, folder: Path, cluster: Cluster, progress: Progress) -> int:
    """Run what is missing and write the table; how many were missing."""
    missing = [trial for trial in plan.trials if not job_file(folder, trial).exists()]
    shared = split.chosen.table.resolved.workspace.fit(f"trials-{data}")
    if missing:
        bench, gpus = made.pilot.prepare(split, shared, cluster, progress)
        job = RunTrial(bench, str(folder.resolve()), {trial.name: trial for trial in missing})
        done = len(plan.trials) - len(missing)
        progress("trials", done, len(plan.trials))
        for _ in run_tasks(cluster, job, [trial.name for trial in missing], gpus=gpus):
            done += 1
            progress("trials", done, len(plan.trials))
    write_trials(table(plan, folder), folder / TABLE)
    return len(missing)


def table(plan: Plan, folder: Path) -> TrialsTable:
    """The finished trials of a plan."""
    found = [_scores(read_json(job_file(folder, trial))["metrics"]) for trial in plan.trials]
    metrics = tuple(sorted({name for scores in found for name in scores}))
    return TrialsTable(
        sources=plan.sources,
        metrics=metrics,
        trials=tuple(trial.name for trial in plan.trials),
        budgets=np.array([trial.budget for trial in plan.trials], np.int64),
        seeds=np.array([trial.seed for trial in plan.trials], np.int64),
        shares=np.array([[trial.shares[name] for name in plan.sources] for trial in plan.trials]),
        values=np.array([[scores.get(name, np.nan) for name in metrics] for scores in found]),
    )


def _scores(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{metric}.{held}": value for held, scores in metrics.items() for metric, value in scores.items()}


def _told(outcome: Outcome, made: Asked, split: Split, plan: Plan, folder: Path) -> dict[str, Any]:
    """What trials.json holds, beside the table: the same for the same trials, whoever ran them."""
    drawn = {name: len(rows) for name, rows in split.drawn_from.items()}
    notes = [f"trials: source {name!r} has no surviving rows and is in no mixture" for name in split.idle]
    if split.matching:
        notes.append(f"trials: {split.matching} survivors match held-out pairs and were not drawn")
    facts = {
        "recipe": outcome.resolved.recipe.name,
        "design": made.design.model_dump(mode="json"),
        "pilot": made.pilot.kind,
        "identity": made.pilot.identity(split),
        "sources": list(plan.sources),
        "prior": plan.prior.tolist(),
        "largest_shares": plan.upper.tolist(),
        "mixtures": len(plan.mixtures),
        "budgets": list(plan.budgets),
        "seeds": made.trials.seeds,
        "trials": len(plan.trials),
        "drawn_from": drawn,
        "held_out": {name: len(rows) for name, rows in split.held.items()},
        "most_repeats": _most_repeats(plan, drawn),
        "notes": notes,
    }
    write_json(rounded(facts), folder / FACTS)
    told: dict[str, Any] = rounded(facts)
    path = folder / TABLE
    return told | {"table": str(path), "mix": _recipe_line(path, outcome.resolved.folder)}


def _most_repeats(plan: Plan, drawn: dict[str, int]) -> dict[str, int]:
    """Per source, how often a sample of it is drawn at most in any trial."""
    largest = plan.mixtures.max(axis=0)
    return {name: int(-(-plan.budgets[-1] * largest[place] // drawn[name])) for place, name in enumerate(plan.sources)}


def _recipe_line(path: Path, recipe_folder: Path) -> str:
    near = os.path.relpath(path, recipe_folder)
    return f"mix: {{kind: pilot_trials, trials: {near}}}"
