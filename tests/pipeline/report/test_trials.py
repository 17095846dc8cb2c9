"""The section on pilot runs: what is drawn where, in which colour, and what is left out."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.report.law_charts import law_chart, marginal_chart
from pipeline.report.numbers import MINUS
from pipeline.report.page import render
from pipeline.report.summary import distances, tiles
from pipeline.report.trials_chart import trials_chart
from pipeline.report.trials_view import LawView, TrialsView, trials_view
from pipeline.report.view import MixtureView, ReportView, SourceShare


def runs(sources: int, count: int = 10) -> TrialsView:
    shares = np.random.default_rng(0).dirichlet(np.ones(sources), count)
    names = tuple(f"s{number}" for number in range(sources))
    return TrialsView(names, shares, shares[:, 0], {"exported": tuple(shares[0])}, marginal=dict.fromkeys(names, 0.5))


@pytest.mark.parametrize("sources", [2, 3, 4, 30])
def test_best_and_worst_runs_have_the_ends_of_the_scale(sources: int) -> None:
    chart = trials_chart(runs(sources))
    assert chart is not None
    drawn = re.findall(r"var\(--(q\d)\)", chart)
    assert {drawn.count(f"q{number}") for number in range(1, 6)} == {2}
    assert "10 runs; the best drew s0" in chart
    assert len(set(re.findall(r">(s\d+)<", chart))) == min(sources, 12)  # axes: those that vary most
    assert (">50.0 %<" in chart) == (sources == 2 or sources == 4)


def test_corners_of_the_triangle_are_the_sources() -> None:
    view = replace(runs(3, 3), shares=np.eye(3), objective=np.array([1.0, 2.0, 3.0]))
    chart = trials_chart(view)
    assert chart is not None
    marks = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*style="fill: var\(--(q\d)\)', chart)
    at = {tone: (float(x), float(y)) for x, y, tone in marks}
    assert at["q1"][0] < at["q5"][0] < at["q3"][0] and at["q5"][1] < at["q1"][1] == at["q3"][1]


def test_nothing_is_drawn_of_nothing() -> None:
    assert trials_chart(replace(runs(3), objective=np.full(10, np.nan))) is None
    assert trials_chart(runs(1)) is None
    assert marginal_chart({"only": 0.0}) is None
    assert law_chart(LawView("nll.a", "linear", np.array([1.0, np.nan]), np.array([1.0, 2.0])), "x") is None
    same = law_chart(LawView("nll.a", "linear", np.ones(3), np.ones(3)), "x")
    assert same is not None and "3 runs between 1 and 1" in same
    level = marginal_chart({"a": 0.0, "b": 0.0})
    assert level is not None


def test_bars_to_the_left_are_sources_that_help() -> None:
    chart = marginal_chart({"a": 0.4, "b": -0.2, "c": 1e-17})
    assert chart is not None
    assert re.findall(r">([abc])</text>", chart) == ["b", "c", "a"]
    assert chart.index("var(--c1)") < chart.index("var(--c4)")
    assert ">0<" in chart and "1e" not in chart


def test_the_section_tells_of_every_law(view: ReportView) -> None:
    page = render(view)
    section = page[page.index('<section id="trials"') :].split("</section>")[0]
    assert "60 pilot runs" in section and "Slope of the predicted objective (nll.target)" in section
    assert "log_linear, weight 1." in section and "gaussian_process, not in the objective" in section
    assert section.count("<svg") == 4
    assert 'id="trials"' not in render(replace(view, trials=None))
    hostile = replace(view.trials or runs(3), sources=("<b>", "$x$", "\u202eart", "web"))
    assert "<b>" not in render(replace(view, trials=hostile)).split('<section id="trials"')[1].split("</section>")[0]


def test_bars_of_a_loss_begin_below_its_best() -> None:
    share = SourceShare("a", 1, 1, 1, 1, 1)
    mixture = MixtureView((share,), -0.5, {"natural": 0.5, "uniform": 0.0}, objective_name="predicted nll.target")
    assert [(name, round(percent, 1)) for name, _, percent in distances(mixture)] == [
        ("exported", 7.4),
        ("uniform", 53.7),
        ("natural", 100.0),
    ]
    page = ReportView("t", "r", 0, (), mixture=mixture)
    tile = next(tile for tile in tiles(page) if tile.label == "predicted nll.target")
    assert (tile.detail, tile.tone) == (f"{MINUS}1 against the natural mixture", "good")
    assert "Lower is better; bars begin" in render(page)


def test_a_record_becomes_a_view() -> None:
    line = {"law": "linear", "weight": 1.0, "measured": [1.0, None], "predicted": [1.5, 2.0], "facts": {"runs": 2}}
    evidence = {
        "trials": {"shares": {"a": [1.0, 0.25], "b": [0.0, 0.75]}, "objective": [1.0, None]},
        "mixtures": {"natural": {"a": 0.5, "b": 0.5}},
        "metrics": {"nll.a": line},
        "marginal": {"a": 0.1, "b": -0.1},
        "unit": "nll.a",
        "facts": {},
    }
    found = trials_view({"capped": {"a": 1.0}, "evidence": evidence})
    assert found is not None and found.shares.tolist() == [[1, 0], [0.25, 0.75]]
    assert found.proposed == {"exported": (1.0, 0.0), "natural": (0.5, 0.5)}
    assert np.isnan(found.objective).tolist() == [False, True] and np.isnan(found.laws[0].measured[1])
    assert trials_view({"capped": {}, "evidence": {}}) is None
