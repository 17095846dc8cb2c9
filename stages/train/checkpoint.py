"""An unfinished training run in one file: what is trained, optimizer, progress, RNGs, and what it belongs to.

One safetensors file, its header carrying the facts as JSON; written under another name and renamed, so that a kill
leaves the old checkpoint or the new one. The frozen models are never stored, only their identities. It may be continued
by another number of ranks: each step draws the same samples, and its loss is the same to rounding.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.budget import CURVE_POINTS, Stand
from stages.train.connector import ConnectorCard
from stages.train.journal import Journal
from stages.train.ranks import ALONE, Ranks
from stages.train.watch import Watch

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge
    from stages.train.options.averaging import Averaged


@dataclass(frozen=True)
class Belonging:
    """What a checkpoint may be continued with."""

    card: ConnectorCard
    data: str
    """Fingerprint of the training samples."""
    schedule: dict[str, Any]
    """Every setting that decides a step: budget, batch, rates, optimizer, precision, seed."""

    def refuse_other(self, facts: dict[str, Any], where: Path) -> None:
        """Compare with the facts of a checkpoint.

        Raises:
            CuveeError: other models, samples or settings, with both values.
        """
        self.card.refuse_other(ConnectorCard.model_validate(facts["card"]), where)
        for name, mine in (("data", self.data), ("schedule", self.schedule)):
            if facts[name] != mine:
                raise CuveeError(
                    f"{where} was trained with {name} = {facts[name]!r}, but this run has {mine!r}; "
                    "continue it with what it began with, or remove it to train anew"
                )


@dataclass
class Progress:
    """How far a run is."""

    sampler: dict[str, list[int]]
    """The state of the sampler behind the steps done."""
    steering: dict[str, Any] = field(default_factory=dict)
    """The state of the schedule behind the steps done; empty under fixed weights."""
    step: int = 0
    """Steps done."""
    used: int = 0
    """Of the budget, in its units."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, mean loss over the label tokens since the point before)."""
    pending: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """(loss sum, label tokens) since the curve's last point."""
    watch: Watch = field(default_factory=Watch)
    journal: Journal = field(default_factory=Journal)

    def record(self, loss_sum: float, tokens: float, stand: Stand) -> None:
        """Count a finished step."""
        self.step, self.used = self.step + 1, stand.begun + stand.cost
        self.pending = [self.pending[0] + loss_sum, self.pending[1] + tokens]
        if stand.marks(CURVE_POINTS):
            self.curve.append((self.step, self.pending[0] / self.pending[1]))
            self.pending = [0.0, 0.0]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "watch": vars(self.watch), "journal": vars(self.journal)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Progress":
        """From JSON values."""
        curve = [(step, loss) for step, loss in plain["curve"]]
        read = {"curve": curve, "watch": Watch(**plain["watch"]), "journal": Journal(**plain["journal"])}
        return cls(**{**plain, **read})


def save_checkpoint(
    path: Path,
    bridge: "Bridge",
    optimizer: "torch.optim.Optimizer",
    progress: Progress,
    of: Belonging,
    average: "Averaged | None" = None,
    ranks: Ranks = ALONE,
) -> None:
    """Write everything needed to continue bit for bit; all ranks call it, the first one writes."""
    import torch
    from safetensors.torch import save_file

    noise = ranks.all(_noise())
    if not ranks.is_first:
        return
    tensors = {f"trained/{name}": value for name, value in bridge.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
    tensors |= {f"average/{name}": value for name, value in (average.tensors if average else {}).items()}
    tensors |= {f"noise/{rank}/{name}": value for rank, each in enumerate(noise) for name, value in each.items()}
    # A long run's record outgrows the header, which holds 100 MB.
    record = bytearray(json.dumps(progress.plain(), allow_nan=False).encode())
    tensors["progress"] = torch.frombuffer(record, dtype=torch.uint8)
    facts = {"card": of.card.model_dump(mode="json"), "data": of.data, "schedule": of.schedule}
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, temporary, metadata={"facts": json.dumps(facts)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path,
    bridge: "Bridge",
    optimizer: "torch.optim.Optimizer",
    of: Belonging,
    average: "Averaged | None" = None,
    ranks: Ranks = ALONE,
) -> Progress:
    """Put a saved run's state into what is trained, the optimizer, `average` and torch's RNGs.

    Raises:
        CuveeError: it belongs to other models, samples or settings, or the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress = Progress.of(json.loads(tensors["progress"].numpy().tobytes()))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CuveeError(f"checkpoint {path} is damaged: {error}; remove it to train anew") from error
    of.refuse_other(facts, path)
    bridge.load_state_dict(_under("trained/", tensors))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("optimizer/", tensors).items():
        number, part = name.split("/")
        state.setdefault(int(number), {})[part] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if average is not None:
        average.tensors = _under("average/", tensors)
    saved = 1 + max(int(name.split("/")[0]) for name in _under("noise/", tensors))
    _hear_noise(_under(f"noise/{ranks.number % saved}/", tensors))
    return progress


def _under(prefix: str, tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _noise() -> "dict[str, torch.Tensor]":
    """The states of this rank's random number generators."""
    import torch

    here = {"cpu": torch.get_rng_state()}
    return here | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _hear_noise(states: "dict[str, torch.Tensor]") -> None:
    import torch

    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
