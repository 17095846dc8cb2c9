"""What a run would cost: what is missing, against throughputs measured by earlier runs in this workspace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.changes import setting_changes, shard_changes
from pipeline.identify import look
from pipeline.learn import foreseen
from pipeline.plan import Plan, Shard, make_plan, snapshot
from pipeline.resolve import Resolved, folders
from pipeline.sidecars import read_json, read_table
from schemas.columns import IMAGE
from schemas.errors import RecipeError
from schemas.tables import POOL_ROLE
from stages.budget import Budget
from stages.fitted_stage import FittedStage


def estimate(resolved: Resolved, price: str | None = None, *, verify: bool = False) -> dict[str, Any]:
    """Per stage: shards missing and reused, why, samples, worker seconds (None where never measured), bytes, cost.

    With `verify` every known shard is digested instead of believed by its size and time.

    Raises:
        RecipeError: a price that is not NAME=NUMBER with gpu_hour or worker_hour.
    """
    shards, rewritten = look(resolved, verify=verify)
    _refuse_budget(resolved, shards)
    resolved = foreseen(resolved, shards)
    plan = make_plan(resolved, shards)
    before = _last_run(resolved)
    rates, per_shard = _measured(resolved), _samples_per_shard(plan)
    unit, amount = _price(price)
    stages, readable = [], sum(shard.reason is None for shard in shards)
    for kind in ["index", *(stage.name for stage in resolved.stages)]:
        waits = kind != "index" and kind not in resolved.addresses
        missing = readable if waits else plan.missing.get(kind, 0)
        samples = round(missing * per_shard) if per_shard is not None else None
        rate = rates.get(kind)
        seconds = 0.0 if not missing else samples / rate if samples is not None and rate else None
        line = {"kind": kind, "missing": missing, "reused": readable - missing, "samples": samples, "seconds": seconds}
        line["why"] = (
            _learning(plan, resolved, kind) if waits else _why(plan, kind, before, resolved) if missing else ""
        )
        stages.append(line | {"cost": seconds / 3600 * amount if unit and seconds is not None else None})
    return {
        "recipe": resolved.recipe.name,
        "shards": len(plan.shards),
        "bytes": sum(shard.size for shard in plan.shards),
        "bytes_to_read": sum(plan.shards[number].size for number in _touched(resolved, plan)),
        "unreadable": [shard.input.container.path for shard in plan.shards if shard.reason is not None],
        "stages": stages,
        "since": before and before["run"],
        "shard_changes": shard_changes(read_table(_run_folder(resolved, before) / "pool.parquet"), snapshot(shards))
        if before
        else {},
        "rewritten": rewritten,
        "setting_changes": setting_changes(before["recipe"], resolved.recipe.model_dump(mode="json", exclude_none=True))
        if before
        else [],
        "price": price,
        "compare": {"budget": resolved.recipe.compare.settings(), "selectors": list(resolved.contenders)}
        if resolved.recipe.compare
        else None,
        "trials": _trials(resolved),
        "computes": any(line["missing"] for line in stages),
        "addresses": resolved.addresses,
    }


def _trials(resolved: Resolved) -> dict[str, Any] | None:
    trials = resolved.recipe.trials
    if trials is None:
        return None
    count = trials.count * len(trials.budgets) * trials.seeds
    return {"trials": count, "design": trials.design.kind, "pilot": trials.pilot.kind, "samples": list(trials.budgets)}


def _refuse_budget(resolved: Resolved, shards: Sequence[Shard]) -> None:
    """Of a pool that is known, no more rows can be left than it has; how many are left shows when it is scored."""
    pool = [shard for shard in shards if shard.input.role == POOL_ROLE and shard.reason is None]
    if resolved.recipe.compare is None or not all(shard.digest for shard in pool):
        return
    budget = Budget.model_validate(resolved.recipe.compare.settings())
    if budget.samples is not None and budget.samples > (there := sum(shard.samples for shard in pool)):
        raise RecipeError(f"compare: asked for {budget.samples} samples of a pool of {there}; lower `samples`")


def _last_run(resolved: Resolved) -> dict[str, Any] | None:
    """The record of the newest run of a recipe of this name."""
    for path in sorted((resolved.workspace.root / "runs").glob("*/run.json"), reverse=True):
        record: dict[str, Any] = read_json(path)
        if record["recipe"]["name"] == resolved.recipe.name and (path.parent / "pool.parquet").exists():
            return record
    return None


def _run_folder(resolved: Resolved, record: dict[str, Any]) -> Path:
    return resolved.workspace.run(record["run"])


def _why(plan: Plan, kind: str, before: dict[str, Any] | None, resolved: Resolved) -> str:
    """Why a stage has something to do."""
    unseen = sum(shard.digest is None and shard.reason is None for shard in plan.shards)
    reasons = [f"{unseen} shards not seen before"] if unseen else []
    if plan.missing[kind] > unseen:
        was = _of_kind((before or {}).get("addresses", {}), kind)
        same = was == _of_kind(folders(resolved), kind)
        told = (
            "new step"
            if not was
            else "its sidecars are not there"
            if same
            else "settings, version, inputs or fit changed"
            if kind in resolved.fits
            else "settings, version or inputs changed"
        )
        reasons.append(f"{plan.missing[kind] - unseen} known shards: {told}")
    return "; ".join(reasons)


def _of_kind(addresses: dict[str, str], kind: str) -> dict[str, str]:
    return {name: address for name, address in addresses.items() if name.split(" of ")[0] == kind}


def _learning(plan: Plan, resolved: Resolved, kind: str) -> str:
    """Why nothing is known of a stage's sidecars yet."""
    stage = next(stage for stage in resolved.stages if stage.name == kind)
    if not isinstance(stage, FittedStage):
        return "waits for what another step learns"
    shards = sum(shard.reason is None and shard.input.role in stage.learns_from for shard in plan.shards)
    of = f" to the {' and '.join(stage.learns_from)} ({shards} shards)" if stage.learns_from else ""
    return f"to be fitted{of}, then computed; where a fit comes out as one before, only for new shards"


def _touched(resolved: Resolved, plan: Plan) -> set[int]:
    """Numbers of the shards that are opened: new ones, and those that lack a stage that reads images."""
    seeing = {stage.name for stage in resolved.stages if IMAGE in stage.reads}
    opened = (item.token for item in plan.work if item.digest is None or not seeing.isdisjoint(item.stages))
    return {number for token in opened for number in plan.places[token][:1]}


def _samples_per_shard(plan: Plan) -> float | None:
    """Mean of the shards that are known, by which the unknown ones are guessed."""
    known = [shard.samples for shard in plan.shards if shard.digest is not None]
    return sum(known) / len(known) if known else None


def _measured(resolved: Resolved) -> dict[str, float]:
    """Samples per worker second of each kind, from the newest run that computed it."""
    rates: dict[str, float] = {}
    for record in sorted((resolved.workspace.root / "runs").glob("*/run.json")):
        for line in read_json(record)["stages"]:
            if line["samples_per_s"]:
                rates[line["kind"]] = line["samples_per_s"]
    return rates


def _price(price: str | None) -> tuple[str, float]:
    if price is None:
        return "", 0.0
    unit, _, amount = price.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if unit not in ("gpu_hour", "worker_hour") or value < 0:
        raise RecipeError(f"--price {price!r}: expected gpu_hour=NUMBER or worker_hour=NUMBER")
    return unit, value


def plan_text(facts: dict[str, Any]) -> str:
    """The plan for a terminal."""
    lines = [f"{facts['recipe']}: {facts['shards']} shards, {facts['bytes'] / 1e6:.1f} MB"]
    width = max(18, *(len(line["kind"]) for line in facts["stages"]))
    lines.append(f"  {'stage':{width}} {'missing':>8} {'reused':>8} {'samples':>10} {'worker time':>12}  cost")
    for line in facts["stages"]:
        samples = "unknown" if line["samples"] is None else str(line["samples"])
        seconds = "not measured" if line["seconds"] is None else f"{line['seconds']:.0f} s"
        cost = f"{line['cost']:.2f}" if line["cost"] is not None else ""
        lines.append(
            f"  {line['kind']:{width}} {line['missing']:>8} {line['reused']:>8} {samples:>10} {seconds:>12}  {cost}"
        )
    lines += [f"  {line['kind']}: {line['why']}" for line in facts["stages"] if line["why"]]
    if facts["since"]:
        lines += _since(facts)
    if facts["compare"]:
        budget = ", ".join(f"{amount} {name}" for name, amount in facts["compare"]["budget"].items())
        lines.append(f"  compare ({budget}): {', '.join(facts['compare']['selectors'])}")
    if facts["trials"]:
        made, samples = facts["trials"], ", ".join(map(str, facts["trials"]["samples"]))
        lines.append(
            f"  trials ({made['trials']}): {made['pilot']} on mixtures by {made['design']}, {samples} samples each"
        )
    if facts["unreadable"]:
        lines.append(f"  unreadable: {', '.join(facts['unreadable'][:5])}")
    will = f"reads {facts['bytes_to_read'] / 1e6:.1f} MB of shards" if facts["computes"] else "nothing is missing"
    return "\n".join([*lines, f"  {will}"])


def _since(facts: dict[str, Any]) -> list[str]:
    changes = [f"{len(paths)} {kind}" for kind, paths in facts["shard_changes"].items()]
    lines = [f"  since run {facts['since']}: shards {', '.join(changes) or 'unchanged'}"]
    lines += [f"    {line}" for line in facts["setting_changes"]]
    return lines + [f"    {path} changed behind an equal size and time" for path in facts["rewritten"]]
