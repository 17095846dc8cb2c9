# ruff: noqa: RUF001 -- the page writes true minus signs and dashes
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.report import write_report
from pipeline.report.page import CARDS, CARDS_PER_GROUP, GROUPS, render
from pipeline.report.view import (
    CaptionView,
    Card,
    ContestView,
    CostView,
    GalleryGroup,
    NamesView,
    ReportView,
    ScoreView,
    StatusCount,
    Step,
    TrainingView,
)

VOID = {"meta", "link", "img", "br", "hr"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title></style></svg><iframe src=//evil.test>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egpj.exe\u202c \x00 \x1b[31m \ud800 \u2028 \ufeff \U000e0041",
    "$\\frac{1}{0$ & $ _^",
    "Z" + "\u0301" * 5000,
)


class Outline(HTMLParser):
    """Reads a page strictly: every element is closed by its own tag, in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open if tag in VOID else self.open[:-1]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(page: str) -> Outline:
    reader = Outline()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def assert_inert(page: str) -> Outline:
    """No script, no address that is not inside the page, no element or attribute that the templates do not write."""
    reader = outline(page)
    assert not {"script", "iframe", "object", "embed", "form", "base", "foreignobject"} & set(reader.seen)
    for tag, name, value in reader.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "srcset", "action", "data"):
            assert value.startswith(("#", "data:image/webp;base64,")) or value == "data:,", (tag, name, value)
        assert "url(" not in value or "url(#" in value
    return reader


def bare() -> ReportView:
    return ReportView(title="t", run="r", counted=0, status_counts=())


def test_all_sections_stand_in_the_page(view: ReportView) -> None:
    page = render(view)
    reader = assert_inert(page)
    links = [value for tag, name, value in reader.attributes if tag == "a" and name == "href"]
    assert {link[1:] for link in links} <= set(reader.ids)
    sections = ["funnel", "verdicts", "samples", "duplicates", "scores", "rankings"]
    sections += ["mixture", "training", "checks", "cost", "recipe"]
    assert [name for name in reader.ids if name in sections] == sections
    text = " ".join("".join(reader.text).split())
    for expected in ("below_clip_score", "28 of 28", "−0.3", "drawings", "name: tested-recipe", "optimal_transport"):
        assert expected in text


def test_it_needs_no_network(view: ReportView) -> None:
    page = render(view)
    assert "://" not in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "@import" not in page


def test_ids_are_unique_and_references_resolve(view: ReportView) -> None:
    twins = replace(view, scores=(*view.scores, replace(view.scores[0], column="clip-score")))
    reader = outline(page := render(twins))
    assert len(reader.ids) == len(set(reader.ids))
    for target in re.findall(r'(?:url\(|href=")#([^")]+)', page):
        assert target in reader.ids
    for labels in (value for _, name, value in reader.attributes if name == "aria-labelledby"):
        assert set(labels.split()) <= set(reader.ids)


def test_every_chart_is_named_and_described(view: ReportView) -> None:
    page = render(view)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 2 + 2 + 1 + 4 + 1 + 2 + 3
    for chart in charts:
        assert 'role="img"' in chart
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", chart)
        assert "#0101" not in chart
        assert "var(--" in chart


def test_same_view_same_bytes_in_any_process(view: ReportView, tmp_path: Path) -> None:
    write_report(view, tmp_path / "a.html")
    shuffled = replace(
        view,
        status_counts=view.status_counts[::-1],
        scores=tuple(replace(score, values=dict(reversed(list(score.values.items())))) for score in view.scores),
        names=tuple(replace(item, counts=dict(reversed(list(item.counts.items())))) for item in view.names),
    )
    write_report(shuffled, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    conftest = Path(__file__).with_name("conftest.py")
    code = (
        "import importlib.util, sys, pathlib; import matplotlib; matplotlib.rcParams['font.size'] = 31\n"
        f"spec = importlib.util.spec_from_file_location('fixtures', {str(conftest)!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "from pipeline.report import write_report\n"
        f"write_report(module.full_view(), pathlib.Path({str(tmp_path / 'c.html')!r}))\n"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root), "TZ": "Asia/Tokyo", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "c.html").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["a.html", "b.html", "c.html"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_shown_and_never_obeyed(hostile: str, view: ReportView, make_card: Callable[..., Card]) -> None:
    calm = assert_inert(render(poisoned(view, make_card, "calm")))
    page = render(poisoned(view, make_card, hostile))
    reader = assert_inert(page)
    assert reader.seen == calm.seen
    text = page.encode("utf-8").decode("utf-8")
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2066-\u2069\ufeff\U000e0000-\U000e0fff]", text
    )
    assert "\u0301" * 5 not in text
    shown = "".join(reader.text)
    for sign in ("alert(1)", "7 * 7", "[U+202E]", "frac", "Z\u0301"):
        assert (sign in shown) == (sign in hostile.replace("\u202e", "[U+202E]"))


def poisoned(view: ReportView, make_card: Callable[..., Card], text: str) -> ReportView:
    """The same string in every place a pool, a recipe or a plugin can reach."""
    bad = make_card(1, caption=text, key=text, uid=text, source=text, note=text, scores={text: 0.5})
    assert view.training
    assert view.mixture
    arms = tuple(replace(arm, name=text, meaning=text) for arm in view.training.arms)
    differences = tuple(replace(item, left=text, right=text) for item in view.training.differences)
    shares = tuple(replace(share, source=text) for share in view.mixture.shares)
    return replace(
        view,
        title=text,
        run=text,
        status_counts=(StatusCount(text, "dropped", text, 100, text),),
        funnel=(Step(text, 100, 0, {text: 100}, name=text, evidence={text: text, "list": [text, {text: text}]}),),
        scores=(ScoreView(text, {text: np.arange(5.0)}, text, text, view.scores[0].thresholds),),
        names=(NamesView(text, {text: {text: 3}}, {text: 5}, text),),
        gallery=(GalleryGroup(text, 1, (bad,), text, text),),
        duplicates=tuple(replace(group, decided_by=text, survivor=bad, others=(bad,)) for group in view.duplicates),
        mixture=replace(
            view.mixture, shares=shares, kind=text, objective_name=text, binding=(text,), references={text: 1.0}
        ),
        training=TrainingView(
            arms,
            view.training.metrics,
            differences,
            {text: text},
            (CaptionView(bad.image, text, {text: (text, 0.5)}),),
            text,
        ),
        notes=(text,),
        facts={text: text},
        recipe_yaml=text,
        checks=tuple(replace(check, name=text, value=text, bar=text) for check in view.checks),
        stages=tuple(replace(stage, kind=text) for stage in view.stages),
    )


def test_a_caption_of_a_megabyte_is_cut(view: ReportView, make_card: Callable[..., Card]) -> None:
    short = len(render(replace(view, gallery=(GalleryGroup("kept", 1, (make_card(1),)),))))
    page = render(replace(view, gallery=(GalleryGroup("kept", 1, (make_card(1, caption="word " * 200_000),)),)))
    assert len(page) < short + 2_000
    assert "word word…" in page


def test_a_page_of_nothing() -> None:
    reader = assert_inert(render(bare()))
    assert "section" not in reader.seen
    assert "holds" in "".join(reader.text)


def test_zero_kept_rows(view: ReportView) -> None:
    counts = (StatusCount("photos", "dropped", "below_clip_score", 100),)
    steps = (Step("top_fraction", 100, 0, {"below_clip_score": 100}), Step("dsir", 0, 0))
    page = render(
        replace(view, status_counts=counts, funnel=steps, mixture=None, training=None, exported=None, gallery=())
    )
    assert_inert(page)
    assert "0 % of the pool" in page


def test_a_lost_sample_is_said_aloud(view: ReportView) -> None:
    assert "broken" not in render(view)
    page = render(replace(view, counted=101))
    assert "broken" in page
    assert "101 in, 100 accounted for" in page
    assert "unaccounted 3" in render(replace(view, funnel=(Step("dsir", 10, 5, {"not_sampled": 2}),)))


def test_broken_images_become_tiles_with_the_reason(view: ReportView) -> None:
    page = render(view)
    assert "<span>truncated image</span>" in page
    assert "<span>not an image</span>" in page
    assert page.count("data:image/webp") == 4 + 3 + 2 + 1


def test_the_file_stays_small_whatever_the_pool_holds(view: ReportView, make_card: Callable[..., Card]) -> None:
    from io import BytesIO

    from PIL import Image

    noise = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save(noise, "PNG")
    cards = tuple(make_card(number, image=noise.getvalue()) for number in range(CARDS_PER_GROUP + 5))
    one = render(replace(view, gallery=(GalleryGroup("kept", 900, cards),), duplicates=(), training=None))
    assert one.count("data:image/webp") == CARDS_PER_GROUP
    many = tuple(GalleryGroup(f"reason_{number}", 900, cards) for number in range(GROUPS + 5))
    page = render(replace(view, gallery=many, duplicates=(), training=None))
    assert page.count("data:image/webp") == CARDS // GROUPS * GROUPS
    assert "5 more verdicts" in page
    assert len(page) < 5_000_000


def test_no_step_hides_the_duplicates_of_another(view: ReportView) -> None:
    group = view.duplicates[0]
    many = tuple(replace(group, decided_by=step) for step in ("first", "second", "third") for _ in range(16))
    page = render(replace(view, duplicates=many))
    found = [page.count(f"<h3><code>{step}</code>") for step in ("first", "second", "third")]
    assert found == [5, 5, 5] and "33 more groups" in page


def test_generated_captions_stand_beside_their_picture_with_their_distance(view: ReportView) -> None:
    page = render(view)
    spoken = page[page.index('<div class="spoken">') :]
    spoken = spoken[: spoken.index("</div>\n<dl")]
    assert spoken.count("<img") == 1 and "no image kept" in spoken
    assert re.findall(r"<dd[^>]*>([^<]*) <b>([^<]*)</b>", spoken) == [
        ("advertisement", "1"), ("two red stars", "0"), ("(nothing)", "1"), ("a blue heart", "0.33"),
    ]  # fmt: skip
    assert spoken.count('class="same"') == 1, "only what is right word for word is marked"


def test_a_contest_has_a_page_of_its_own(view: ReportView) -> None:
    assert view.training is not None
    arms = [replace(arm, cost=CostView(7300.0, 30.0, 1.5, whole=arm.name == "raw")) for arm in view.training.arms]
    training = replace(view.training, arms=tuple(arms), facts={"seeds": 3})
    page = render(ContestView("Selections", "61d9", training, notes=("a note",), recipe_yaml="seeds: 3"))
    assert "Funnel" not in page and "in the pool" not in page and "a note" in page
    assert re.findall(r'data-label="curation, alone">\s*(.*?)\s*</td>', page) == ["2 h 01 min", "≥ 2 h 01 min"]
    assert re.findall(r'data-label="curation, shared">\s*(.*?)\s*</td>', page) == ["30 s", "≥ 30 s"]
    assert 'data-label="spent">1.5' in page and "curated − raw" in page
