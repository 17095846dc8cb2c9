"""Numbers as people read them: grouped, rounded to what they are worth, with a true minus sign."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
_SCALES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def count(value: int) -> str:
    """12345 -> `12,345`."""
    return f"{value:,}".replace("-", MINUS)


def compact(value: int) -> str:
    """A count in at most five characters: `1,500`, `123k`, `4.2M`, `12.8B`."""
    if value < 100_000:
        return count(value)
    for scale, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= scale:
            return number(value / scale) + unit
    return count(value)


def share(part: float, whole: float = 1.0) -> str:
    """A part of a whole in percent; small parts keep a digit, so that few is never shown as none."""
    if whole == 0:
        return NONE
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def number(value: float, digits: int = 3) -> str:
    """A measured number at `digits` significant digits, never in exponents between 1e-4 and 1e7."""
    if not math.isfinite(value):
        return NONE
    if value == 0 or (float(value).is_integer() and abs(value) < 1e7):
        return count(int(value))
    size = math.floor(math.log10(abs(value)))
    if not -4 <= size < 7:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """`number` with its sign written out."""
    return ("+" if value > 0 else "") + number(value, digits)


def measured(values: Sequence[float], error: float, plus: bool = False) -> list[str]:
    """Values with the decimals that two digits of their error are worth; none that is not zero is shown as zero."""
    decimals = 2 if error <= 0 or not math.isfinite(error) else min(9, max(0, 1 - math.floor(math.log10(error))))
    while decimals < 9 and any(value != 0 and round(value, decimals) == 0 for value in values):
        decimals += 1
    sign = "+" if plus else ""
    return [f"{value:{sign},.{decimals}f}".replace("-", MINUS) if value else "0" for value in values]


def seconds(value: float | None) -> str:
    """A duration: `20 ms`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if value is None:
        return NONE
    if 0 < value < 0.1:
        return f"{max(1, round(1000 * value))} ms"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: int | None) -> str:
    """Bytes in decimal units: `1.2 MB`."""
    if value is None:
        return NONE
    for scale, unit in _SCALES:
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value} B"


def plain(value: Any, limit: int = 8) -> str:
    """A JSON value on one line: `photos 0.31, fashion 0.28`; at most `limit` entries of a list or mapping."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, Mapping):
        return _listed([f"{name} {plain(item, limit)}" for name, item in value.items()], limit)
    if isinstance(value, list | tuple):
        return _listed([plain(item, limit) for item in value], limit)
    return str(value)


def _listed(items: list[str], limit: int) -> str:
    more = f" and {count(len(items) - limit)} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
