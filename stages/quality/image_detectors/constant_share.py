"""Blank and nearly constant pictures: how much of a picture is one tone, once fine noise is averaged away."""

import numpy as np

from stages.quality.image_detectors.analysis import Grey

SMOOTHING_PX = 2
"""Half side of the square that is averaged: noise of 6 levels becomes one of 1.2."""
TONE_LEVELS = 16
"""Neighbouring grey levels that count as one tone."""


def constant_share(grey: Grey) -> float:
    """Share of the smoothed (h, w) grey levels that is one tone; in (0, 1].

    It is about brightness: two colours of equal brightness count as one tone.
    """
    from PIL import Image, ImageFilter

    return largest_tone(np.asarray(Image.fromarray(grey).filter(ImageFilter.BoxBlur(SMOOTHING_PX))))


def largest_tone(grey: Grey) -> float:
    """Share of the most frequent `TONE_LEVELS` neighbouring levels among (h, w) grey levels; in (0, 1]."""
    sums = np.concatenate([[0], np.cumsum(np.bincount(grey.ravel(), minlength=256))])
    return float((sums[TONE_LEVELS:] - sums[:-TONE_LEVELS]).max() / grey.size)
