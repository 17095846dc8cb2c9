"""Screenshots: few tones fill most of the picture, as in nothing seen through a lens, and there are many bits of text.

Slides, charts, scanned pages and packages full of print look the same to it, and so they score.
"""

import numpy as np

from stages.quality.image_detectors.analysis import Grey

TONES = 12
"""Grey levels, wherever they lie, whose share is taken: a ground, its panels, and what JPEG makes of them."""
PIECES = 8
"""Separate pieces of text at which the likeness reaches half of what it can."""


def screenshot_likeness(grey: Grey, pieces: int) -> float:
    """Share of the `TONES` most frequent of (h, w) grey levels, times n / (n + `PIECES`) for n pieces of text.

    In [0, 1); 0 without text.
    """
    counts = np.sort(np.bincount(grey.ravel(), minlength=256))
    return float(counts[-TONES:].sum() / grey.size * pieces / (pieces + PIECES))
