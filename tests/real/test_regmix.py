"""RegMix's published runs: with n of them our law ranks unseen mixtures no worse than LightGBM does with 2 n."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench.mixture_laws import alone, choosing, grown, rank, read, stopped
from stages.mixture.predictors.gaussian_process import fit_gaussian_process

Doubles = npt.NDArray[np.float64]
Runs = tuple[Doubles, Doubles, list[str]]


@pytest.fixture(scope="module")
def learned(shared: Path) -> Runs:
    """512 mixtures of 17 sources with 13 losses, of models with 1M parameters."""
    return read(folder(shared), "train")


@pytest.fixture(scope="module")
def unseen(shared: Path) -> Runs:
    """256 more."""
    return read(folder(shared), "test")


def folder(shared: Path) -> Path:
    if not (shared / "data" / "mixture").is_dir():
        pytest.skip("RegMix's runs ../shared/data/mixture are not here")
    return shared / "data" / "mixture"


@pytest.mark.parametrize("runs", [32, 64])
def test_half_the_runs_are_enough(learned: Runs, unseen: Runs, runs: int) -> None:
    def mean_rank(fit: object, count: int) -> float:
        shares, losses = learned[0][:count], learned[1][:count]
        found = [fit(shares, values, unseen[0]) for values in losses.T]  # type: ignore[operator]
        return float(np.mean([rank(one, other) for one, other in zip(found, unseen[1].T, strict=True)]))

    ours = mean_rank(alone("gaussian_process"), runs)
    theirs = {fit.__name__: mean_rank(fit, 2 * runs) for fit in (stopped, grown)}
    print(f"mean Spearman x 100 over 13 losses: {ours:.2f} with {runs} runs, LightGBM {theirs} with {2 * runs}")
    assert ours >= max(theirs.values())


def test_the_law_of_pile_cc_is_chosen_without_looking_at_the_test_runs(learned: Runs, unseen: Runs) -> None:
    column = learned[2].index("pile_cc")
    shares, values = learned[0][:64], learned[1][:64, column]
    found = choosing(["log_linear", "gaussian_process"])(shares, values, unseen[0])
    assert rank(found, unseen[1][:, column]) >= 97


def test_intervals_hold_on_runs_that_were_published(learned: Runs, unseen: Runs) -> None:
    held = []
    for column in range(0, 13, 3):
        ends = fit_gaussian_process(learned[0][:128], learned[1][:128, column], seed=0).interval(unseen[0])
        measured = unseen[1][:, column]
        held.append(((ends[:, 0] <= measured) & (measured <= ends[:, 1])).mean())
    print(f"95 % intervals hold {np.round(held, 3)} of the test runs")
    assert 0.9 <= np.mean(held) <= 0.995
