"""The outline of each shape as a polygon inside the unit disc."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

Outline = npt.NDArray[np.float64]

_CROSS = [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)]
"""Half of a cross; the other half is this one turned round."""
CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1.25), (1.1, 0.85), (-1.1, 0.85)],
    "diamond": [(0, -1.4), (0.95, 0), (0, 1.4), (-0.95, 0)],
    "cross": [*_CROSS, *[(-x, -y) for x, y in _CROSS]],
    "star": [
        (reach * math.sin(k * math.pi / 5), -reach * math.cos(k * math.pi / 5))
        for k, reach in enumerate((1.3, 0.55) * 5)
    ],
}
"""Straight-edged shapes; scaled by 0.78 they fit the unit disc, or nearly."""


@cache
def outline(shape: str) -> Outline:
    """(n, 2) closed outline, y downwards; a ring is one polygon that runs round the disc and back round the hole."""
    curves = {"circle": lambda: 0.92 * _disc(), "ring": _ring, "crescent": _crescent, "heart": _heart}
    return curves[shape]() if shape in curves else 0.78 * np.asarray(CORNERS[shape], np.float64)


def _disc() -> Outline:
    turn = np.linspace(0, 2 * np.pi, 40)
    return np.stack([np.sin(turn), -np.cos(turn)], 1)


def _ring() -> Outline:
    return np.concatenate([_disc(), 0.55 * _disc()[::-1]])


def _crescent() -> Outline:
    """The unit disc less a disc of radius 0.8 around (0.45, 0); the two circles meet at 51.3 and 77.4 degrees."""
    rim, bite = np.radians(np.linspace(51.3, 308.7, 36)), np.radians(np.linspace(282.6, 77.4, 30))
    inner = 0.8 * np.stack([np.cos(bite), np.sin(bite)], 1) + [0.45, 0.0]
    return np.concatenate([np.stack([np.cos(rim), np.sin(rim)], 1), inner])


def _heart() -> Outline:
    turn = np.linspace(0, 2 * np.pi, 40)
    x = 16 * np.sin(turn) ** 3
    y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([x, -y - 2.5], 1) / 16.5
