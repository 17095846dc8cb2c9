"""`cuvee demo --mixture`: three ways to find a mixture, held against what was planted and against each other.

Optimal transport needs no training, a log-linear law needs pilot runs, DoGE one run of a proxy. Each proposes shares;
then connectors are trained on each proposal, on equal and on natural shares, everything else equal, with five seeds,
and measured on held-out pairs of the target.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.cluster import Cluster
from pipeline.demo.mixture_world import HARMFUL, REDUNDANT, SOURCES, write_mixture_world
from pipeline.demo.recipe import demo_recipe
from pipeline.fingerprints import rounded
from pipeline.lock import holding
from pipeline.present import present
from pipeline.report.view import Check
from pipeline.resolve import Resolved, resolve
from pipeline.run import Outcome, finish, run
from pipeline.score import Progress
from pipeline.sidecars import write_json
from pipeline.trials import run_trials
from stages.mixture.trials_table import TrialsTable, mixture_ids, read_trials
from stages.train.differences import paired

SEED = 0
SEEDS = 5
HARM = 0.05
"""The most that a harmful source may get."""
METRIC = "nll.target"
Shares = Mapping[str, float]
REFERENCES: dict[str, Shares] = {
    "uniform": {source.name: 1 / len(SOURCES) for source in SOURCES},
    "natural": {source.name: source.share for source in SOURCES},
}
BOTH = ["image_embedding", "text_embedding"]
"""A pair's two embeddings together: captions of other scenes are like the target's, and lie beside other images."""
LAW = "pilot_trials"
MIXERS: dict[str, dict[str, Any]] = {
    "optimal_transport": {"column": BOTH, "atoms": 512},
    # A short run moves weights little: mu is small for it, what harms may be pushed down as fast as help lifts, and the
    # first quarter, in which they still move, is left out of the mean.
    "doge": {"least": -5.0, "mu": 0.001, "every": 2, "proxy_steps": 120, "tail": 0.75},
    # Olmix's law and its pull to a prior, which settles the shares of sources that the runs cannot tell apart.
    LAW: {
        "predictor": "log_linear",
        "metrics": {METRIC: 1, "brier.target": 1},
        "prior": "uniform",
        "prior_strength": 0.05,
        "bootstrap": 50,
    },
}


@dataclass(frozen=True)
class Desk:
    """Where recipes are written and run."""

    folder: Path
    base: dict[str, Any]
    cluster: Cluster
    progress: Progress
    held_by: str

    def resolved(self, name: str, **sections: Any) -> Resolved:
        """The demo's recipe with other sections, written beside it."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**self.base, "name": name, **sections}, sort_keys=False))
        found = resolve(path)
        found.workspace.held_by = self.held_by
        return found

    def mixed(self, kind: str, suffix: str = "", **sections: Any) -> Outcome:
        """What a mixer proposes."""
        settings = {**MIXERS[kind], **({"trials": "work/trials/tried/trials.parquet"} if kind == LAW else {})}
        recipe = self.resolved(kind.replace("_", "-") + suffix, mix={"kind": kind, **settings}, **sections)
        return run(recipe, self.cluster, until="mix", progress=self.progress)

    def tried(self, name: str, **trials: Any) -> TrialsTable:
        """The pilots of the recipe, with other settings."""
        recipe = self.resolved(name, trials={**self.base["trials"], **trials})
        found = run_trials(recipe, self.cluster, progress=self.progress)
        return read_trials(Path((found.trials or {})["table"]))


def show_mixture(folder: Path, pairs: int, workers: int | None, progress: Progress) -> Outcome:
    """Run the demo in `folder` and write its report, that of the log-linear law, with the checks against the truth.

    Raises:
        CuveeError: the folder holds something else.
    """
    write_mixture_world(folder / "corpus", pairs=pairs, seed=SEED)
    path = demo_recipe(folder, "mixture_recipe.yaml")
    base = yaml.safe_load(path.read_text())
    with holding(resolve(path).workspace.root) as held, Cluster(workers=workers) as cluster:
        desk = Desk(folder, base, cluster, progress, held.run)
        desk.tried("tried")
        outcomes = {kind: desk.mixed(kind) for kind in MIXERS}
        split = desk.mixed("optimal_transport", "-split", pool=_split(base["pool"], folder))
        proposals = {kind: _capped(outcome) for kind, outcome in outcomes.items()}
        losses = _losses(desk, {**proposals, **REFERENCES})
        checks = [*_shares(proposals, outcomes), *_gains(losses, proposals), *_stable(proposals, split)]
        outcome = outcomes[LAW]
        _record(outcome, checks, proposals, losses)
        present(outcome, checks)
        finish(outcome)
    return outcome


def _split(pool: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The pool with each source of the redundant pair's larger one cut in two, shard by shard."""
    name = REDUNDANT[1]
    shards = sorted((folder / "corpus" / "pool" / name).glob("*.tar"))
    halves = [[str(shard.relative_to(folder)) for shard in shards[start::2]] for start in (0, 1)]
    others = [source for source in pool if source["source"] != name]
    return [*others, *({"source": f"{name}_{i}", "shards": half} for i, half in enumerate(halves, start=1))]


def _capped(outcome: Outcome) -> dict[str, float]:
    assert outcome.blend is not None and outcome.blend.mixture is not None
    shares: dict[str, float] = outcome.blend.mixture["capped"]
    return shares


def _losses(desk: Desk, mixtures: Mapping[str, Shares]) -> dict[str, list[float]]:
    """Per mixture the held-out loss of each seed, at the largest budget."""
    distinct: dict[tuple[tuple[str, float], ...], dict[str, float]] = {}
    keys = {}
    for name, shares in mixtures.items():
        keys[name] = tuple(sorted((source, round(share, 6)) for source, share in shares.items()))
        distinct[keys[name]] = dict(shares)
    design = {"kind": "given", "mixtures": list(distinct.values())}
    found = desk.tried("confirmed", design=design, count=len(distinct), seeds=SEEDS)
    return {name: _measured(found, distinct[key]) for name, key in keys.items()}


def _measured(found: TrialsTable, shares: Shares) -> list[float]:
    wanted = np.array([shares.get(source, 0.0) for source in found.sources])
    ids = mixture_ids(found.shares)
    mine = ids[np.abs(found.shares - wanted / wanted.sum()).sum(axis=1).argmin()]
    at = np.flatnonzero((ids == mine) & (found.budgets == found.budgets.max()))
    order = at[np.argsort(found.seeds[at])]
    values: list[float] = found.values[order, found.metrics.index(METRIC)].tolist()
    return values


def _shares(proposals: Mapping[str, Shares], outcomes: Mapping[str, Outcome]) -> Iterator[Check]:
    for kind, shares in proposals.items():
        mixture = outcomes[kind].blend.mixture  # type: ignore[union-attr]
        low, high = mixture["intervals"][HARMFUL]  # type: ignore[index]
        text = f"{shares[HARMFUL]:.3f}, ideal's 95 % interval [{low:.3f}, {high:.3f}]"
        yield Check(f"share of the harmful source by {kind}", text, f"<= {HARM}", shares[HARMFUL] <= HARM)


def _gains(losses: Mapping[str, list[float]], proposals: Mapping[str, Shares]) -> Iterator[Check]:
    for kind in proposals:
        for reference in REFERENCES:
            found = paired(losses[kind], losses[reference])
            text = f"{found['mean']:+.4f} nats per token, 95 % interval [{found['low']:+.4f}, {found['high']:+.4f}]"
            yield Check(f"NLL on held-out pairs, {kind} - {reference}", text, "below 0", found["high"] < 0)


def _stable(proposals: Mapping[str, Shares], split: Outcome) -> Iterator[Check]:
    before = sum(proposals["optimal_transport"][name] for name in REDUNDANT)
    after = sum(share for name, share in _capped(split).items() if name.startswith(REDUNDANT[0]))
    text = f"{before:.3f} in two sources, {after:.3f} in three"
    yield Check("total of the redundant sources by optimal_transport, one of them split", text, "within 0.05",
                abs(before - after) <= 0.05)  # fmt: skip


def _record(
    outcome: Outcome, checks: list[Check], proposals: Mapping[str, Shares], losses: Mapping[str, list[float]]
) -> None:
    outcome.record["proposals"] = {kind: dict(shares) for kind, shares in proposals.items()}
    outcome.record["held_out_losses"] = dict(losses)
    outcome.record["checks"] = [vars(check) for check in checks]
    write_json(rounded(outcome.record), outcome.folder / "run.json")
