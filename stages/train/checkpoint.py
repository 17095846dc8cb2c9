"""An unfinished training run in one file: connector, optimizer, step, curve, RNG, and what it belongs to.

One safetensors file, its header carrying the facts as JSON; written under another name and renamed, so that a kill
leaves the old checkpoint or the new one. The frozen models are never stored, only their identities.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.connector import ConnectorCard

if TYPE_CHECKING:
    import torch

    from stages.train.options.averaging import Averaged

CURVE_POINTS = 100
"""Most points of a loss curve; each is the mean over the label tokens since the one before."""


@dataclass(frozen=True)
class Belonging:
    """What a checkpoint may be continued with."""

    card: ConnectorCard
    data: str
    """Fingerprint of the training samples."""
    schedule: dict[str, Any]
    """Every setting that decides a step: budget, batch, rates, seed."""

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

    step: int
    """Steps done."""
    curve: list[tuple[int, float]]
    pending: list[float]
    """(loss sum, label tokens) since the curve's last point."""
    sampler: dict[str, list[int]]
    """The state of the sampler behind the steps done."""
    steering: dict[str, Any] = field(default_factory=dict)
    """The state of the schedule behind the steps done; empty under fixed weights."""

    def record(self, loss_sum: float, tokens: int, steps: int) -> None:
        """Count a finished step; the curve gets a point at equal distances and at the end."""
        self.step += 1
        self.pending = [self.pending[0] + loss_sum, self.pending[1] + tokens]
        if self.step % -(-steps // CURVE_POINTS) == 0 or self.step == steps:
            self.curve.append((self.step, self.pending[0] / self.pending[1]))
            self.pending = [0.0, 0.0]


def save_checkpoint(
    path: Path,
    module: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    progress: Progress,
    of: Belonging,
    average: "Averaged | None" = None,
) -> None:
    """Write everything needed to continue bit for bit."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"connector/{name}": value for name, value in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
    tensors |= {f"average/{name}": value for name, value in (average.tensors if average else {}).items()}
    tensors["rng"] = torch.get_rng_state()
    # A long schedule's record outgrows the header, which holds 100 MB.
    steering = bytearray(json.dumps(progress.steering, allow_nan=False).encode())
    tensors["steering"] = torch.frombuffer(steering, dtype=torch.uint8)
    small = {name: value for name, value in vars(progress).items() if name != "steering"}
    facts = {"card": of.card.model_dump(), "data": of.data, "schedule": of.schedule, "progress": small}
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, temporary, metadata={"facts": json.dumps(facts)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path,
    module: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    of: Belonging,
    average: "Averaged | None" = None,
) -> Progress:
    """Put a saved run's state into `module`, `optimizer`, `average` and torch's RNG.

    Raises:
        CuveeError: it belongs to other models, samples or settings, or the file is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise CuveeError(f"checkpoint {path} is damaged: {error}; remove it to train anew") from error
    of.refuse_other(facts, path)
    module.load_state_dict({name[10:]: value for name, value in tensors.items() if name.startswith("connector/")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, field = name.split("/")
            state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])
    if average is not None:
        average.tensors = {name[8:]: value for name, value in tensors.items() if name.startswith("average/")}
    saved = facts["progress"]
    curve = [(step, loss) for step, loss in saved["curve"]]
    steering = json.loads(tensors["steering"].numpy().tobytes())
    return Progress(saved["step"], curve, saved["pending"], saved["sampler"], steering)
