from pathlib import Path
from typing import Any

import pytest

from pipeline.report import write_report
from pipeline.report.view import ReportView

CONTRAST = """(() => {
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = s => { const [r, g, b] = s.match(/[\\d.]+/g).map(Number);
    return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b); };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const ratio = (e, what) => { const l = luminance(getComputedStyle(e)[what]);
    return (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05); };
  const texts = [...document.querySelectorAll('p, dt, dd, h1, h2, h3, td:not(.zero), th')].map(e => ratio(e, 'color'));
  const charts = [...document.querySelectorAll('svg text')].map(e => ratio(e, 'fill'));
  return [Math.min(...texts), Math.min(...charts), paper];
})()"""


@pytest.fixture
def page(view: ReportView, tmp_path: Path) -> Path:
    write_report(view, tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_opens_quietly_and_fits(browser: Any, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark)
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.evaluate("document.images.length") == 10
    text, charts, paper = browser.evaluate(CONTRAST)
    assert text >= 4.5
    assert charts >= 4.5
    assert (paper < 0.05) == dark


def test_light_and_dark_look_different(browser: Any, page: Path, tmp_path: Path) -> None:
    browser.open(page, dark=False)
    light = browser.screenshot(tmp_path / "light.png")
    browser.open(page, dark=True)
    assert light != browser.screenshot(tmp_path / "dark.png")
    assert len(light) > 50_000


def test_nothing_runs_even_if_it_got_in(browser: Any, page: Path, tmp_path: Path) -> None:
    """The policy itself: a page with an injected script, handler and picture from elsewhere stays inert."""
    injected = '<script>document.title = "owned"</script><img src="nowhere" onerror="document.title = \'owned\'">'
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text("utf-8").replace("<main", injected + "<main", 1), "utf-8")
    browser.open(bad)
    assert browser.evaluate("document.title") != "owned"
    assert browser.complaints(), "the browser reports what the policy stopped"


def test_the_watch_sees_requests_and_errors(browser: Any, tmp_path: Path) -> None:
    """Without the policy the same checks fail: they can tell a loud page from a quiet one."""
    loud = tmp_path / "loud.html"
    loud.write_text('<img src="missing.png"><script>console.error("here"); throw new Error("there")</script>')
    browser.open(loud)
    assert [url.rpartition("/")[2] for url in browser.requests()] == ["missing.png"]
    assert len(browser.complaints()) >= 2
