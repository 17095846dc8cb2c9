"""Logit correction against plain cross entropy, on coloured digits and on planted sources: accuracies by group.

    OMP_NUM_THREADS=1 python -m bench.logit_correction             # both tables, on the test sets
    OMP_NUM_THREADS=1 python -m bench.logit_correction --choose    # the validation split that settings were chosen on

Coloured digits (bench/cases/coloured_digits.py): the same MLP, batches and number of steps for all. `two_branch` has
to guess the colours, `counted` is given those of the training set. Planted sources (bench/cases/planted_sources.py): a
linear concept head that knows each sample's source.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.cases.coloured_digits import CLASSES, Coloured, balanced, biased
from bench.cases.planted_sources import CONCEPTS, SOURCES, planted
from stages.train.language_model import one_thread
from stages.train.logit_correction.concept_head import fit_concept_head, log_prior_of
from stages.train.logit_correction.correction import (
    corrected_losses,
    counted_prior,
    group_accuracies,
    group_balanced,
)
from stages.train.logit_correction.two_branch import TwoBranch, train_two_branch

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]
MINORITIES, SEEDS, WIDTH = (0.005, 0.01, 0.02, 0.05), range(1, 6), 100
PAPER = {"plain": (35.19, 52.09, 65.86, 82.17), "two_branch": (71.25, 82.25, 86.21, 91.15)}
"""C-MNIST, arXiv:2212.01433, table 1."""
CHOSEN = TwoBranch(steps=1500, momentum=0.99)
PLAIN_DECAY = 0.0
CHOICE_SEED = 0
PENALTY, TRAINED, ASKED = 1.0, 4000, 10_000


def network(seed: int) -> "torch.nn.Module":
    """Three hidden layers of 100, as in the paper's C-MNIST runs."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [3 * 64, WIDTH, WIDTH, WIDTH]
        hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))


def single(task: Coloured, steps: int, seed: int, decay: float, log_prior: Doubles | None) -> "torch.nn.Module":
    """One network by cross entropy, corrected by ln P(class | colour) if given."""
    import torch

    pixels, labels = torch.from_numpy(task.pixels), torch.from_numpy(task.labels)
    prior = torch.from_numpy(log_prior if log_prior is not None else np.zeros((CLASSES, CLASSES))).float()
    random, module = np.random.Generator(np.random.Philox(seed)), network(2 * seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=CHOSEN.learning_rate, weight_decay=decay)
    for _ in range(steps):
        drawn = random.choice(len(labels), CHOSEN.batch, replace=False)
        losses = corrected_losses(module(pixels[drawn]), labels[drawn], prior.T[task.colours[drawn]])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.mean())
        optimizer.step()
    return module


def accuracies(module: "torch.nn.Module", asked: Coloured) -> dict[tuple[int, int], float]:
    """By (class, colour)."""
    import torch

    with torch.no_grad():
        told = module(torch.from_numpy(asked.pixels)).argmax(dim=1).numpy()
    return group_accuracies(told, asked.labels, asked.colours)


def two_branch(task: Coloured, settings: TwoBranch, seed: int) -> "torch.nn.Module":
    """The network that two branches give."""
    import torch

    pixels, labels = torch.from_numpy(task.pixels), torch.from_numpy(task.labels)
    return train_two_branch(settings, pixels, labels, CLASSES, network, seed).network


def coloured_methods(settings: TwoBranch = CHOSEN) -> "dict[str, Callable[[Coloured, int], torch.nn.Module]]":
    """What is compared, by name; each trains on a task with a seed."""

    def counted(task: Coloured, seed: int) -> "torch.nn.Module":
        prior = np.log(counted_prior(task.labels, task.colours, CLASSES, CLASSES))
        return single(task, settings.steps, seed, PLAIN_DECAY, prior)

    return {
        "plain": lambda task, seed: single(task, settings.steps, seed, PLAIN_DECAY, None),
        "two_branch": lambda task, seed: two_branch(task, settings, seed),
        "counted": counted,
    }


def coloured_row(minority: float, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Group-balanced test accuracy in per cent, per method and seed."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        task, asked = biased(minority, seed), balanced("test", seed)
        for name, train in coloured_methods().items():
            found.setdefault(name, []).append(100 * group_balanced(accuracies(train(task, seed), asked)))
    return found


def planted_row(seed: int) -> dict[str, dict[str, float]]:
    """Worst-group and group-balanced accuracy in per cent on the balanced set, of a plain and a corrected head."""
    task, asked = planted(TRAINED, 0.95, seed, 0), planted(ASKED, 0.5, seed, 1)
    log_prior = log_prior_of(task.concepts, task.sources, CONCEPTS, SOURCES)
    found = {}
    for name, corrections in (("plain", None), ("counted", log_prior.T[task.sources])):
        weights, bias = fit_concept_head(task.features, task.concepts, CONCEPTS, PENALTY, corrections)
        by_group = group_accuracies((asked.features @ weights.T + bias).argmax(axis=1), asked.concepts, asked.sources)
        found[name] = {"worst": 100 * min(by_group.values()), "balanced": 100 * group_balanced(by_group)}
    return found


def choose() -> None:
    """Group-balanced validation accuracies of some settings, on a seed that no table uses."""
    grid = {
        f"two_branch momentum {momentum} mixup {mixup} biased_rate {slow}": TwoBranch(
            steps=CHOSEN.steps, momentum=momentum, mixup=mixup, biased_rate=slow
        )
        for momentum in (0.9, 0.99)
        for mixup in (True, False)
        for slow in (1.0, 0.1)
    }
    asked = balanced("validation", CHOICE_SEED)
    tasks = [biased(minority, CHOICE_SEED) for minority in MINORITIES]
    for decay in (0.0, 1e-4, 1e-3):
        row = [single(task, CHOSEN.steps, CHOICE_SEED, decay, None) for task in tasks]
        _print(f"plain weight_decay {decay}", [100 * group_balanced(accuracies(module, asked)) for module in row])
    for name, settings in grid.items():
        row = [two_branch(task, settings, CHOICE_SEED) for task in tasks]
        _print(name, [100 * group_balanced(accuracies(module, asked)) for module in row])


def _print(name: str, values: Sequence[float]) -> None:
    print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in [*values, float(np.mean(values))]) + " |", flush=True)


def tables() -> None:
    """Both tables of RESULTS.md."""
    rows = {minority: coloured_row(minority, SEEDS) for minority in MINORITIES}
    print("| method | 0.5 % | 1 % | 2 % | 5 % |\n| --- | --- | --- | --- | --- |")
    for name in coloured_methods():
        cells = [f"{np.mean(row[name]):.1f} ± {np.std(row[name], ddof=1):.1f}" for row in rows.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
        if name in PAPER:
            print(f"| {name}, C-MNIST in the paper | " + " | ".join(map(str, PAPER[name])) + " |")
    ahead = [sum(a > b for a, b in zip(row["two_branch"], row["plain"], strict=True)) for row in rows.values()]
    print(f"seeds of {len(SEEDS)} in which two_branch is above plain: {ahead}")
    print("\n| seed | plain: worst | counted: worst | plain: balanced | counted: balanced |\n" + "| --- " * 5 + "|")
    for seed in SEEDS:
        row = planted_row(seed)
        numbers = [row[name][which] for which in ("worst", "balanced") for name in ("plain", "counted")]
        print(f"| {seed} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="validation accuracies instead")
    with one_thread():
        choose() if parser.parse_args().choose else tables()
