"""What stages that pay by the request spent in a run, for its record; a run that finishes closes the account."""

import shutil
from contextlib import suppress
from typing import Any

from pipeline.resolve import Resolved
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


def settle_accounts(resolved: Resolved) -> None:
    """Forget what this run's stages spent: everything it paid for is in sidecars. Other recipes' accounts stay."""
    folders = [resolved.workspace.spending(resolved.addresses[stage.name]) for stage in resolved.stages]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for place in {folder.parent for folder in folders}:
        with suppress(OSError):  # not there, or another's account is
            place.rmdir()
