"""What a scene holds, drawn from counter-based randomness: one or two groups of shapes, a backdrop, sometimes a word.

A scene is facts only. `render` turns it into pixels, `captions` into sentences; both say nothing the facts do not say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import xxhash

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "crescent")
COLOURS = {
    "red": (214, 39, 40),
    "orange": (245, 133, 24),
    "yellow": (246, 213, 48),
    "green": (54, 158, 62),
    "teal": (28, 170, 176),
    "blue": (38, 92, 216),
    "purple": (126, 60, 176),
    "pink": (242, 130, 184),
    "brown": (128, 78, 40),
}
BACKDROPS = {
    "white": (244, 244, 242),
    "grey": (158, 160, 164),
    "black": (26, 26, 30),
    "cream": (240, 226, 190),
    "navy": (22, 34, 74),
    "mint": (186, 228, 206),
}
UNCLEAR = {("blue", "navy"), ("purple", "navy"), ("brown", "black"), ("yellow", "cream"), ("teal", "mint")}
"""Colours that are hard to see on a backdrop; such a pair is never drawn."""
WORDS = ("OPEN", "SALE", "EXIT", "STOP", "CAFE", "NEW", "ZOO", "TAXI", "BUS", "HOTEL", "PARK", "MILK", "ICE", "TEA")
RELATIONS = ("left of", "right of", "above", "below")
SMALL, LARGE = "small", "large"
RADIUS = {SMALL: 0.125, LARGE: 0.19}
"""Radius of an object as a share of the shorter side of the image."""
WORD_STRIP = 0.24
"""Share of the height kept free for the word, at the bottom."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """Equal objects: what they are and where; `places` are centres (x, y) in [0, 1] of width and height."""

    shape: str
    colour: str
    size: str
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """The facts of one image; `relation` says where the first group lies, seen from the second."""

    groups: tuple[Group, ...]
    backdrop: str
    relation: str | None = None
    word: str | None = None


def randomness(seed: int, stream: str, index: int) -> np.random.Generator:
    """A generator that depends on (seed, stream, index) and on nothing else (Philox, counter-based)."""
    return np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(f"{seed}/{stream}/{index}".encode())))


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def draw_scene(rng: np.random.Generator, favoured: tuple[str, ...] = ()) -> Scene:
    """A scene of two to six objects; groups differ in shape and in colour, objects do not overlap.

    Shapes are equally likely; with `favoured`, four scenes of five take theirs from those.
    """
    backdrop = pick(rng, tuple(BACKDROPS))
    visible = [colour for colour in COLOURS if (colour, backdrop) not in UNCLEAR]
    shapes = [SHAPES[k] for k in rng.permutation(len(SHAPES)).tolist()]
    if favoured and rng.random() < 0.8:
        shapes.sort(key=lambda shape: shape not in favoured)
    colours = rng.permutation(len(visible))[:2]
    relation = pick(rng, RELATIONS) if rng.random() < 0.65 else None
    word = pick(rng, WORDS) if rng.random() < 0.15 else None
    groups: list[Group] = []
    for number, region in enumerate(_regions(relation, WORD_STRIP if word else 0.0)):
        alone = relation is None or (number == 1 and len(groups[0].places) == 1)
        count = int(rng.integers(2, 5)) if alone else int(rng.integers(1, 4))
        group = Group(shapes[number], visible[colours[number]], SMALL, ())
        groups.append(_place(rng, group, count, region))
    return Scene(tuple(groups), backdrop, relation, word)


def differs(scene: Scene, other: Scene) -> bool:
    """True when the first group named for `other` is certainly not in `scene`: neither its shape nor its colour is."""
    named = other.groups[0]
    return all(group.shape != named.shape and group.colour != named.colour for group in scene.groups)


def _regions(relation: str | None, strip: float) -> list[tuple[float, float, float, float]]:
    """Where each group may lie: (left, top, right, bottom)."""
    low = 1.0 - strip
    if relation is None:
        return [(0.0, 0.0, 1.0, low)]
    if relation in ("left of", "right of"):
        halves = [(0.0, 0.0, 0.5, low), (0.5, 0.0, 1.0, low)]
    else:
        halves = [(0.0, 0.0, 1.0, low / 2), (0.0, low / 2, 1.0, low)]
    return halves if relation in ("left of", "above") else halves[::-1]


def _place(rng: np.random.Generator, group: Group, count: int, region: tuple[float, float, float, float]) -> Group:
    """The group with `count` places, large where that fits and a coin says so, fewer objects when crowded."""
    for size in (LARGE, SMALL) if rng.random() < 0.6 else (SMALL,):
        places = _scatter(rng, count, RADIUS[size], region)
        if len(places) == count:
            return replace(group, size=size, places=places)
    return replace(group, size=SMALL, places=places)


def _scatter(
    rng: np.random.Generator, count: int, radius: float, region: tuple[float, float, float, float]
) -> tuple[tuple[float, float], ...]:
    """Up to `count` centres in the region, at least 2.15 radii apart: the first that fit of 40 random ones."""
    left, top, right, bottom = region
    margin = radius * 1.06
    if right - left < 2 * margin or bottom - top < 2 * margin:
        return ()
    found: list[tuple[float, float]] = []
    for u, v in rng.random((40, 2)).tolist():
        x = left + margin + u * (right - left - 2 * margin)
        y = top + margin + v * (bottom - top - 2 * margin)
        if len(found) < count and all(math.hypot(x - a, y - b) > 2.15 * radius for a, b in found):
            found.append((x, y))
    return tuple(found)
