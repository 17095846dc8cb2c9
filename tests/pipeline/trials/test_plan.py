"""Which trials there are: caps from budgets, exact shares, small budgets first, addresses of all that decides."""

import numpy as np
import polars as pl
import pytest

from pipeline.trials.plan import Plan, make_plan
from pipeline.trials.probe import ProbePilot
from pipeline.trials.split import Split
from schemas.errors import CuveeError
from schemas.recipe import Trials
from stages.mixture.designs import DESIGNS
from stages.train.contrastive_probe import ContrastiveProbe
from stages.train.sampler import MixtureSampler

PILOT = ProbePilot(ContrastiveProbe(batch=32))


def rows(name: str, count: int) -> pl.DataFrame:
    return pl.DataFrame({"uid": [f"{name}{n:05d}" for n in range(count)], "image_hash": [f"{n}" for n in range(count)]})


COUNTS = (300, 40, 1000)


def planned(kind: str = "dirichlet", data: str = "data", counts: tuple[int, ...] = COUNTS, **more: object) -> Plan:
    settings = {"count": 9, "budgets": [100, 640], "prior": "uniform", "max_repeats": 3, **more}
    split = Split(None, {name: rows(name, count) for name, count in zip("abc", counts, strict=True)}, {}, 0, ())
    return make_plan(Trials(design=kind, **settings), DESIGNS[kind](kind=kind), PILOT, split, 0, data)


def test_no_sample_is_drawn_more_often_than_the_cap_says_at_the_largest_budget() -> None:
    plan = planned("space_filling", count=20)
    assert plan.budgets == (128, 640)
    assert plan.upper.tolist() == [1.0, 119 / 640, 1.0]
    assert plan.mixtures[:, 1].max() == pytest.approx(119 / 640)
    keys = {name: rows(name, count)["uid"].to_list() for name, count in zip("abc", COUNTS, strict=True)}
    for mixture in plan.mixtures:
        sampler = MixtureSampler(keys, 32, "0")
        for _ in range(20):
            sampler.ids(mixture)
        assert sampler.drawn["b"] <= 3 * 40 and sum(sampler.drawn.values()) == 640


def test_shares_have_nine_decimals_and_add_up_to_one() -> None:
    mixtures = planned(count=60).mixtures
    assert np.array_equal(mixtures, mixtures.round(9)) and abs(mixtures.sum(axis=1) - 1).max() < 1e-15


def test_small_budgets_and_early_seeds_come_first_and_every_trial_has_its_own_address() -> None:
    plan = planned(seeds=2)
    order = [(trial.budget, trial.seed, int(trial.name[1:4])) for trial in plan.trials]
    assert order == sorted(order) and len(order) == 9 * 2 * 2
    assert len({trial.address for trial in plan.trials}) == len({trial.name for trial in plan.trials}) == len(order)


def test_an_address_is_of_mixture_budget_seed_and_data_alone() -> None:
    one = {trial.name: trial.address for trial in planned(seeds=1).trials}
    more = {trial.name: trial.address for trial in planned(seeds=3, budgets=[100, 300, 640]).trials}
    assert one.items() <= more.items()
    other = {trial.name: trial.address for trial in planned(seeds=1, data="other").trials}
    assert not set(one.values()) & set(other.values())


def test_a_budget_that_the_sources_cannot_fill_is_refused_with_the_shares() -> None:
    with pytest.raises(CuveeError, match=r"add up to 0\.14.*\(a 0\.0\d+, b 0\.0\d+, c 0\.0\d+\); lower the largest"):
        planned(counts=(100, 40, 100), budgets=[100, 5000])
