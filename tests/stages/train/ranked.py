"""A small run that may be one of several processes of it, and may be killed at a step; imported by its children."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from transformers import LlamaForCausalLM  # noqa: F401  loaded once, by the server that children are forked from

from stages.train.batches import Batches, Losses
from stages.train.loop import train_mixture
from stages.train.ranks import ALONE, Ranks
from tests.stages.train import generated

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload([__name__])
NAMES = ("photos", "web")


class Killed(Exception):
    pass


def run(
    checkpoint: Path | None = None, killed_after: int | None = None, ranks: Ranks = ALONE, **changed: Any
) -> tuple[dict[int, float], list[list[list[Any]]]]:
    """Loss by step, and what each forward pass drew."""
    frozen = generated.frozen(NAMES, 12)
    corpora = {name: generated.corpus(name, range(12)) for name in NAMES}
    losses: dict[int, float] = {}
    drawn: list[list[list[Any]]] = []
    plain = Batches.losses

    def told(self: Batches, bridge: Any, asked: Any) -> Losses:
        drawn.append([list(one) for one in asked])
        return plain(self, bridge, asked)

    def see(step: int, loss: float) -> None:
        losses[step] = loss
        if step == killed_after:
            raise Killed

    made, weights = generated.settings(**changed), np.array([0.25, 0.75])
    Batches.losses = told  # type: ignore[method-assign]
    try:
        train_mixture(made, frozen, corpora, "0", weights, checkpoint=checkpoint, ranks=ranks, on_step=see)
    except Killed:
        pass
    finally:
        Batches.losses = plain  # type: ignore[method-assign]
    return losses, drawn


def struck(checkpoint: Path, step: int, changed: dict[str, Any]) -> None:
    """A process that SIGKILL strikes where it is about to save that step: no handler, no flush."""
    from stages.train import run as module

    save = module.save_checkpoint

    def strike(path: Any, bridge: Any, optimizer: Any, progress: Any, *others: Any) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(path, bridge, optimizer, progress, *others)

    module.save_checkpoint = strike
    run(checkpoint, **changed)


def rank(number: int, count: int, folder: str, killed_after: int, changed: dict[str, Any]) -> None:
    """One process of `count`."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=count)
    found = run(Path(folder) / "checkpoint.safetensors", killed_after, Ranks(number, count), **changed)
    Path(folder, f"{number}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
