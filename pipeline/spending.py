"""What stages that pay by the request spent in a run, for its record; a run that finishes closes the account."""

import shutil
from typing import Any

from pipeline.resolve import Resolved
from pipeline.sidecars import Workspace
from stages.spending import NANO, spent_in


def spending_lines(resolved: Resolved) -> list[dict[str, Any]]:
    """Per stage that paid: requests, tokens and money, since the last run of this workspace that finished."""
    lines = []
    for stage in resolved.stages:
        folder = resolved.workspace.spending(resolved.addresses[stage.name])
        if folder.is_dir() and (spent := spent_in(folder)).requests:
            cost = spent.cost_nano / NANO
            tokens = {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens}
            lines.append(
                {"stage": stage.name, "requests": spent.requests, **tokens, "cost": cost, "exact": not spent.open}
            )
    return lines


def spending_note(line: dict[str, Any]) -> str:
    """One of them in words."""
    most = "" if line["exact"] else " at most: a worker died without saying what it had used"
    return (
        f"{line['stage']}: {line['requests']:,} requests, {line['input_tokens']:,} input and "
        f"{line['output_tokens']:,} output tokens, {line['cost']:.6g} in money{most}"
    )


def settle_accounts(workspace: Workspace) -> None:
    """Forget what was spent: everything it paid for is in sidecars."""
    shutil.rmtree(workspace.root / "spending", ignore_errors=True)
