"""The mixer as the engine meets it: known laws come back, limits bind, what cannot be is refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import ValidationError

from schemas.errors import ContractError, CuveeError, RecipeError
from stages.fit import Fit
from stages.kinds import kinds
from stages.mixer import Mixer
from stages.mixture.pilot_trials import PilotTrials
from stages.mixture.trials_table import TrialsTable, read_trials
from tests.stages.mixture.pilot_trials.runs import NAMES, SLOPES, evidence, law, stored, table

QUICK = {"trials": "t.csv", "predictor": "linear", "bootstrap": 20}
BOTH = ("nll.target", "nll.books")


def mixer(**settings) -> PilotTrials:
    return PilotTrials.model_validate({**QUICK, **settings})


def test_the_best_source_is_found_and_the_harmful_one_left_out():
    mixture = mixer(predictor="chosen").mix(evidence(table()))
    assert mixture.weights == {"art": 1.0, "books": 0.0, "cars": 0.0, "dogs": 0.0}
    assert mixture.capped == mixture.weights and mixture.binding == ()
    assert mixture.intervals["art"][0] > 0.9 and mixture.intervals["dogs"] == (0, 0)
    assert mixture.objective == pytest.approx(2 + np.exp(-1.5), abs=0.02)
    assert mixture.objective == mixture.references["ideal"] < mixture.references["natural"]
    assert mixture.references["uniform"] == pytest.approx(law("nll.target")(np.full((1, 4), 0.25))[0], abs=0.02)
    assert list(mixture.evidence["marginal"]) == list(NAMES)
    assert "the optimum" in mixture.evidence["facts"]["certificate"]
    json.dumps(asdict(replace(mixture, fit=None)), allow_nan=False)


def test_what_a_source_buys_is_its_slope():
    mixture = mixer(max_share=0.5, predictor="log_linear").mix(evidence(table()))
    assert mixture.capped == pytest.approx({"art": 0.5, "books": 0.5, "cars": 0, "dogs": 0}, abs=1e-6)
    assert mixture.binding == ("max_share: art", "max_share: books")
    marginal = mixture.evidence["marginal"]
    slopes = np.exp(-1.0) * (np.array(SLOPES["nll.target"]) + 1.0)
    assert list(marginal.values()) == pytest.approx(slopes.tolist(), abs=0.05)
    assert sum(marginal[name] * mixture.capped[name] for name in NAMES) == pytest.approx(0, abs=1e-9)


def test_repetition_caps_and_least_shares_bind():
    known = evidence(table(), rows={"art": 10, "books": 100, "cars": 100, "dogs": 100}, samples=100)
    mixture = mixer(max_repeats=3, min_share={"dogs": 0.1}).mix(known)
    assert mixture.weights["art"] == 1.0
    assert mixture.capped == pytest.approx({"art": 0.3, "books": 0.6, "cars": 0, "dogs": 0.1}, abs=1e-6)
    assert mixture.binding == ("min_share: dogs", "max_repeats: art")
    with pytest.raises(CuveeError, match=r"min_share of 'art' is 0\.4, but max_repeats allows it 0\.3"):
        mixer(max_repeats=3, min_share={"art": 0.4}).mix(known)


def test_two_metrics_are_weighed_in_their_spreads():
    known = evidence(table(BOTH, count=14))
    alone = mixer().mix(known)
    assert alone.evidence["unit"] == "nll.target" and set(alone.evidence["metrics"]) == {"nll.target"}
    both = mixer(metrics={"nll.target": 1, "nll.books": 1}, predictor="log_linear").mix(known)
    assert both.evidence["unit"] == "2 metrics, in standard deviations of the runs"
    assert 0.02 < both.weights["books"] < 0.98 and both.weights["art"] > 0.02
    tilted = mixer(metrics={"nll.target": 1, "nll.books": 9}).mix(known)
    assert tilted.weights["books"] == 1.0
    assert tilted.evidence["metrics"]["nll.books"]["weight"] == pytest.approx(0.9)
    one = mixer(metrics={"nll.books": 2.5}).mix(known)
    assert one.weights["books"] == 1.0 and one.evidence["unit"] == "nll.books"


def test_no_metric_gets_worse_than_at_the_reference():
    known = evidence(table(BOTH))
    free = mixer(metrics={"nll.target": 1, "nll.books": 0}).mix(known)
    held = mixer(metrics={"nll.target": 1, "nll.books": 0}, no_worse_than="uniform").mix(known)
    assert free.weights["art"] == 1.0 and 0 < held.weights["books"] < 0.6
    at = held.evidence["metrics"]["nll.books"]["at"]
    assert at["capped"][0] == pytest.approx(at["uniform"][0], abs=1e-5) and held.objective > free.objective
    assert held.binding == ("no_worse_than uniform: nll.books",)
    with pytest.raises(
        CuveeError, match=r"^no_worse_than: uniform: `nll\.books` and max_share: books collide: the metric rises by"
    ):
        mixer(metrics={"nll.target": 1, "nll.books": 0}, no_worse_than="uniform", max_share={"books": 0.1}).mix(known)


def test_a_prior_pulls():
    known = evidence(table(), natural={"art": 0.1, "books": 0.2, "cars": 0.3, "dogs": 0.4})
    strong = mixer(prior_strength=100.0).mix(known)
    assert strong.weights == pytest.approx({"art": 0.1, "books": 0.2, "cars": 0.3, "dogs": 0.4}, abs=0.01)
    weak = mixer(prior_strength=0.3, prior="uniform").mix(known)
    assert 1 > weak.weights["art"] > weak.weights["books"] > weak.weights["dogs"] > 0


def test_reuse_keeps_the_ratios_of_old_sources():
    mixture = mixer(reuse={"books": 0.6, "cars": 0.2, "dogs": 0.2}, max_share={"art": 0.4}).mix(evidence(table()))
    assert mixture.capped == pytest.approx({"art": 0.4, "books": 0.36, "cars": 0.12, "dogs": 0.12}, abs=1e-6)
    kept = evidence(along_the_ratios())  # five runs do for two groups of four sources, as they keep the ratios
    assert mixer(reuse={"books": 3, "cars": 1, "dogs": 1}).mix(kept).weights["art"] == 1.0
    with pytest.raises(RecipeError, match=r"a law of 4 shares needs 5 different mixtures"):
        mixer(reuse={"books": 1, "cars": 1, "dogs": 1}).mix(evidence(along_the_ratios(4)))


def along_the_ratios(count: int = 5) -> TrialsTable:
    full = table(count=count)
    part = np.linspace(0, 1, count)[:, None]
    shares = part * np.array([1.0, 0, 0, 0]) + (1 - part) * np.array([0, 0.6, 0.2, 0.2])
    return replace(full, shares=shares, values=law("nll.target")(shares)[:, None])


def test_a_source_without_rows_gets_nothing_and_one_that_is_gone_leaves_its_pinned_share():
    known = evidence(table(), rows={"books": 100, "cars": 100, "dogs": 100})
    mixture = mixer().mix(known)
    assert mixture.weights == {"books": 1.0, "cars": 0.0, "dogs": 0.0}
    first = mixer(max_share=0.5).mix(evidence(table()))
    assert first.fit is not None
    again = mixer(max_share=0.5).mix(evidence(table(), fit=first.fit))
    assert asdict(again) == asdict(first)
    later = mixer(max_share=0.5).mix(replace(known, fit=first.fit))
    assert later.capped["books"] == 1.0 and later.fit is first.fit
    assert any("'art' has no rows any more: its pinned share of 0.5 goes" in note for note in later.notes)


def test_answers_do_not_depend_on_the_order_of_the_runs(tmp_path):
    full = table(BOTH, noise=0.05)
    order = np.random.default_rng(1).permutation(len(full.trials))
    names = tuple(full.trials[i] for i in order)
    turned = replace(full, trials=names, shares=full.shares[order], values=full.values[order])
    found = []
    for known in (full, turned):
        path = stored(known, tmp_path)
        found.append(asdict(mixer(trials=path).mix(evidence(read_trials(path)))))
    assert found[0] == found[1]


def test_intervals_hold_the_optimum_and_shrink_with_runs():
    few = mixer(prior_strength=0.3).mix(evidence(table(count=10, noise=0.05, seed=2)))
    many = mixer(prior_strength=0.3).mix(evidence(table(count=200, noise=0.05, seed=2)))
    widths = [[high - low for low, high in found.intervals.values()] for found in (few, many)]
    assert sum(widths[1]) < 0.7 * sum(widths[0])
    exact = mixer(prior_strength=0.3).mix(evidence(table(count=200, noise=0.0)))
    for name, (low, high) in few.intervals.items():
        assert low - 0.02 <= exact.weights[name] <= high + 0.02


def test_the_largest_budget_with_enough_runs_is_fitted():
    small, large = table(count=20, budgets=(500,)), table(count=4, budgets=(4000,), seed=1)
    joined = joined_runs(small, replace(large, values=large.values + 5))
    facts = mixer().mix(evidence(joined)).evidence["metrics"]["nll.target"]["facts"]
    assert facts["runs"] == "20 of 20 mixtures" and facts["budgets"] == "500"
    more = table(count=5, budgets=(4000,), seed=1)
    facts = mixer().mix(evidence(joined_runs(small, more))).evidence["metrics"]["nll.target"]["facts"]
    assert facts["runs"] == "5 of 5 mixtures" and facts["budgets"] == "4,000"


def scaled(count: int = 24) -> TrialsTable:
    """Losses fall with the logarithm of the budget, faster for what art there is."""
    full = table(count=count, budgets=(1000, 2000, 4000), noise=0.001)
    steps = np.log2(full.budgets / 1000)
    return replace(full, values=full.values - 0.1 * (steps * (1 + full.shares[:, 0]))[:, None])


def test_runs_at_three_budgets_are_projected_with_the_noise_it_costs():
    known = evidence(scaled(), samples=400)
    near = mixer(max_share=0.5).mix(known)
    far = mixer(max_share=0.5, project_to=16_000).mix(known)
    assert near.objective - far.objective == pytest.approx(0.1 * 2 * 1.5, abs=0.03)
    facts = far.evidence["metrics"]["nll.target"]["facts"]
    assert facts["projection"].startswith("projected to 16,000 samples as ") and "noise grows " in facts["projection"]
    assert "projection" not in near.evidence["metrics"]["nll.target"]["facts"]
    assert all(high - low < 0.3 for low, high in far.intervals.values())
    exported = mixer(project_to="export").mix(known).evidence["metrics"]["nll.target"]["facts"]
    assert exported["projection"].startswith("projected to 400 samples")
    noisy = replace(scaled(), values=scaled().values + np.random.default_rng(0).normal(0, 3, (72, 1)))
    with pytest.raises(CuveeError, match=r"project_to, `nll\.target`: the projection .* not told apart from noise"):
        mixer(project_to=10**6).mix(evidence(noisy))


def test_laws_without_slopes_or_several_in_one_propose_the_like():
    known = evidence(table(count=60))
    trees = mixer(predictor="gradient_boosting").mix(known)
    assert trees.evidence["facts"]["found by"].startswith("mean of the best 128 of 100000 simulated")
    assert trees.evidence["facts"]["certificate"] == "none: a law is not convex"
    assert trees.weights["dogs"] < 0.2 and trees.objective < trees.references["natural"]
    assert trees.evidence["marginal"]["dogs"] > trees.evidence["marginal"]["art"] - 1e-9
    several = mixer(predictor="stacked").mix(evidence(table(count=14)))
    assert several.evidence["metrics"]["nll.target"]["law"] == "stacked" and several.weights["dogs"] < 0.1
    kriged = mixer(predictor="gaussian_process").mix(evidence(table(count=24)))
    assert kriged.evidence["facts"]["found by"].startswith("descent from") and kriged.weights["art"] > 0.8


def joined_runs(one: TrialsTable, other: TrialsTable) -> TrialsTable:
    both = ("trials", "budgets", "seeds", "shares", "values")
    parts = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in both}
    return replace(one, **{**parts, "trials": tuple(parts["trials"].tolist())})


def test_runs_without_a_metric_are_left_to_the_others():
    known = table(BOTH)
    values = known.values.copy()
    values[:20, 1] = np.nan
    holes = replace(known, values=values)
    mixture = mixer(metrics={"nll.target": 1, "nll.books": 1}).mix(evidence(holes))
    lines = mixture.evidence["metrics"]
    assert (len(lines["nll.target"]["measured"]), len(lines["nll.books"]["measured"])) == (32, 12)
    assert sum(value is None for value in mixture.evidence["trials"]["objective"]) == 20
    values[:28, 1] = np.nan
    with pytest.raises(
        RecipeError, match=r"`nll\.books` has 4 runs with 4 at budget 1000 different mixtures; a law of"
    ):
        mixer(metrics={"nll.books": 1}).mix(evidence(replace(known, values=values)))


@pytest.mark.parametrize(
    ("settings", "runs", "message"),
    [
        ({}, {"count": 1}, r"`nll\.target` has one run; a law of 4 shares needs 5 different mixtures"),
        ({}, {"count": 4}, r"4 runs with 4 at budget 1000 different mixtures; .* needs 5"),
        ({"metrics": {"nll.tarpet": 1}}, {}, r"names 'nll\.tarpet', which the table .*; did you mean 'nll\.target'"),
        ({"metrics": {"x": 1}}, {}, r"names 'x', .*; it has nll\.target"),
        ({"metrics": {"nll.target": 0}}, {}, r"gives no weight above 0, found \{'nll\.target': 0"),
        ({"predictor": "oracle"}, {}, r"`predictor` is 'oracle'; expected one of chosen, stacked, "),
        (
            {"project_to": "export"},
            {},
            r"`project_to` needs runs with `nll\.target` at 3 known budgets or more .*found \[1000\]",
        ),
        ({"reuse": {"arts": 1}}, {}, r"`reuse` names 'arts', which the pool does not have; it has art, books"),
        ({"reuse": {"art": 0}}, {}, r"`reuse` gives no source a share above 0"),
        ({"reuse": dict.fromkeys(NAMES, 1)}, {}, r"`reuse` names every source of the pool"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, settings, runs, message):
    path = stored(table(**runs), tmp_path)
    with pytest.raises(RecipeError, match=message):
        mixer(trials=path, **settings).check(NAMES)


def test_other_sources_than_the_pools_are_named(tmp_path):
    asked = mixer(trials=stored(table(), tmp_path))
    asked.check(NAMES)
    with pytest.raises(RecipeError, match=r"drew from 'art', which the pool does not have .*; did you mean 'arts'\?"):
        asked.check(("arts", "books", "cars", "dogs"))
    with pytest.raises(RecipeError, match=r"the pool has 'eels', which no trial drew from: .* column `share\.eels`"):
        asked.check((*NAMES, "eels"))
    with pytest.raises(RecipeError, match=r"there is no file .*none\.csv"):
        mixer(trials=str(tmp_path / "none.csv")).check(NAMES)
    with pytest.raises(CuveeError, match="no source has a surviving row"):
        asked.mix(evidence(table(), rows={}))
    with pytest.raises(ContractError, match="was given no trials"):
        asked.mix(replace(evidence(table()), trials=None))


def test_it_is_known_by_the_content_of_its_table(tmp_path):
    one = mixer(trials=stored(table(), tmp_path))
    (tmp_path / "elsewhere").mkdir()
    two = mixer(trials=stored(table(), tmp_path / "elsewhere"))
    other = mixer(trials=stored(table(noise=0.1), tmp_path / "elsewhere"))
    assert one.identity() == {**one.model_dump(mode="json"), "trials": one.identity()["trials"]}
    assert len(one.identity()["trials"]) == 64 and other.identity() != one.identity() != two.model_dump()
    assert mixer(trials=str(tmp_path / "none")).identity()["trials"] is None
    assert kinds(Mixer)["pilot_trials"] is PilotTrials and one.columns() == () and not one.needs_target()
    for wrong in ({"metrics": {"a.b": -1}}, {"no_worse_than": "best"}, {"project_to": 0}, {"bootstrap": 5}):
        with pytest.raises(ValidationError):
            mixer(**wrong)


def test_a_pinned_fit_needs_every_source():
    fit = Fit(facts={"ideal": {"art": 1.0}, "capped": {"art": 1.0}, "intervals": {}, "gap": {}, "method": {}})
    with pytest.raises(CuveeError, match="source 'books' has no pinned weight"):
        mixer().mix(evidence(table(), fit=fit))
