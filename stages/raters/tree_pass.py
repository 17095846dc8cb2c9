"""Next-token probabilities after many continuations of one cached beginning.

`packed` asks them all in one pass of one row: every question's end, and behind it the inner paths of its answers, each
token seeing the beginning and what leads to it and nothing else. `in_turn` does without a mask of its own: question by
question on a copy of the cache, for models that take no such mask.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.raters.answers import Logs
from stages.raters.answers import Path as TokenPath

if TYPE_CHECKING:
    import torch

ROWS = 8
"""Copies of a cache that are held at once, by `in_turn`."""
After = list[dict[TokenPath, Logs]]
"""Per question and path (the empty one is the question's end), log-probabilities (vocabulary,) of the next token."""


@dataclass(frozen=True)
class Branch:
    """One question's continuation of the beginning."""

    tail: tuple[int, ...]
    """The rest of its prompt, at least one token."""
    paths: tuple[TokenPath, ...]
    """What may be said after it, beginnings before what goes on from them."""


@dataclass(frozen=True)
class Packed:
    """Several branches in one row."""

    ids: tuple[int, ...]
    depths: tuple[int, ...]
    """How many tokens behind the beginning each one stands."""
    parents: tuple[int, ...]
    """Which token of the row comes right before it; -1: the beginning's last."""
    asked: tuple[tuple[int, TokenPath, int], ...]
    """(branch, path, place in the row) of everything that is asked."""


def pack(branches: Sequence[Branch]) -> Packed:
    """Lay branches out in one row."""
    ids: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    asked = []
    for number, branch in enumerate(branches):
        begin = len(ids)
        ids += branch.tail
        depths += range(len(branch.tail))
        parents += [-1, *range(begin, len(ids) - 1)]
        places: dict[TokenPath, int] = {(): len(ids) - 1}
        for path in branch.paths:
            places[path] = len(ids)
            ids.append(path[-1])
            depths.append(len(branch.tail) + len(path) - 1)
            parents.append(places[path[:-1]])
        asked += [(number, path, place) for path, place in places.items()]
    return Packed(tuple(ids), tuple(depths), tuple(parents), tuple(asked))


def sight(parents: Sequence[int]) -> "torch.Tensor":
    """(n, n) bool: which token of a packed row sees which."""
    import torch

    seen = torch.eye(len(parents), dtype=torch.bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            seen[place] |= seen[parent]
    return seen


def packed(model: Any, cache: Any, length: int, offset: int, branches: Sequence[Branch], keep: Any) -> After:
    """One pass over all branches.

    Args:
        model: the network.
        cache: of the beginning; it is prolonged.
        length: tokens of the beginning.
        offset: what is added to a token's place to give its position.
        branches: the questions.
        keep: makes the arguments that ask for some positions' logits only.
    """
    import torch

    row = pack(branches)
    device, lowest = model.device, torch.finfo(model.dtype).min
    mask = torch.zeros(len(row.ids), length + len(row.ids), dtype=model.dtype, device=device)
    mask[:, length:].masked_fill_(~sight(row.parents).to(device), lowest)
    places = [place for _, _, place in row.asked]
    wanted = keep(torch.tensor(places, device=device))
    logits = model(
        input_ids=torch.tensor([row.ids], device=device),
        attention_mask=mask[None, None],
        position_ids=torch.tensor([row.depths], device=device) + length + offset,
        past_key_values=cache,
        use_cache=True,
        **wanted,
    ).logits[0]
    logs = logs_of(logits if wanted else logits[places])
    found: After = [{} for _ in branches]
    for (number, path, _), log in zip(row.asked, logs, strict=True):
        found[number][path] = log
    return found


def in_turn(model: Any, cache: Any, branch: Branch) -> dict[TokenPath, Logs]:
    """A pass for the tail, then one for every few paths, each on its own copy of the cache.

    Args:
        model: the network.
        cache: of the beginning; it is prolonged.
        branch: the question.
    """
    import torch

    device = model.device
    out = model(input_ids=torch.tensor([branch.tail], device=device), past_key_values=cache, use_cache=True)
    found: dict[TokenPath, Logs] = {(): logs_of(out.logits[0, -1:])[0]}
    longest = [path for path in branch.paths if not any(other[: len(path)] == path != other for other in branch.paths)]
    for start in range(0, len(longest), ROWS):
        rows = longest[start : start + ROWS]
        widest = max(map(len, rows))
        ids = torch.tensor([[*path, *[path[-1]] * (widest - len(path))] for path in rows], device=device)
        mine = copy.deepcopy(out.past_key_values)
        mine.batch_select_indices(torch.zeros(len(rows), dtype=torch.long, device=device))
        logits = model(input_ids=ids, past_key_values=mine, use_cache=True).logits
        for path, logs in zip(rows, map(logs_of, logits), strict=True):
            found |= {path[: depth + 1]: logs[depth] for depth in range(len(path))}
    return found


def logs_of(logits: "torch.Tensor") -> list[Logs]:
    """(n, vocabulary) logits as log-probabilities in float64."""
    return list(logits.double().log_softmax(dim=-1).cpu().numpy())
