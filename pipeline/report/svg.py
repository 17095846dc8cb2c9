"""From a matplotlib figure to inline SVG that follows the page: its fonts, its colours in light and dark, its width.

Charts are drawn in placeholder colours, one per role; here each becomes a CSS variable. Ids are dropped or prefixed, so
that many charts live in one page; the same figure gives the same bytes.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE, ACCENT, PAPER, SOFT = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
SERIES = ("#010111", "#010112", "#010113", "#010114", "#010115", "#010116", "#010117")
SCALE = ("#010121", "#010122", "#010123", "#010124", "#010125")
"""From best to worst."""
_VARIABLES = {INK: "ink", MUTED: "ink-2", RULE: "rule", ACCENT: "accent", PAPER: "paper", SOFT: "soft"} | {
    colour: f"{name}{number}" for name, tones in (("c", SERIES), ("q", SCALE)) for number, colour in enumerate(tones, 1)
}
_PLACES = ("d", "x", "y", "transform")
_LONG = re.compile(r"\d+\.\d{3,}")
_PLACEHOLDER = re.compile("|".join(_VARIABLES))
TEXT_PX = 11

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
    "svg.hashsalt": "cuvee",
    "text.parse_math": False,  # a source may be called $x$
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the layout is the same on every machine
    "font.size": TEXT_PX,
    "text.color": MUTED,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.unicode_minus": True,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save inside this: our settings, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def blank(width_px: float, height_px: float) -> "Figure":
    """An empty figure: one user unit of the SVG is about one px of the page."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / 72, height_px / 72), dpi=72)


def inline(figure: "Figure", name: str, title: str, description: str) -> Markup:
    """The figure as an `<svg>` element; `name` is unique in the page, title and description are read aloud."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", file.getvalue()))
    for element in root.iter():
        _adopt(element, name)
    for group in list(root.iter("defs")):
        for style in group.findall("style"):
            group.remove(style)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "class": "chart", "aria-labelledby": f"{name}-t {name}-d"})
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag[0]}"})
        element.text = text
        root.insert(position, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _adopt(element: ElementTree.Element, name: str) -> None:
    """Drop namespaces and the ids of groups; prefix the ids that are referred to; let the page choose fonts."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag == "g":
        attributes.pop("id", None)
    for key, value in attributes.items():
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        if key == "id" or (key == "href" and value.startswith("#")):
            value = value.replace("#", f"#{name}-") if key == "href" else f"{name}-{value}"
        value = _LONG.sub(lambda found: f"{float(found.group()):.2f}", value) if key in _PLACES else value
        attributes[key] = _styled(value) if key == "style" else value
    element.attrib.clear()
    element.attrib.update(attributes)


def _styled(style: str) -> str:
    """A style with the page's fonts and colours."""
    sized = re.sub(r"font-family: [^;]*; ?", "", re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", style))
    return _PLACEHOLDER.sub(lambda found: f"var(--{_VARIABLES[found.group()]})", sized)
