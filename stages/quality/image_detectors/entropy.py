"""Shannon entropy of the grey histogram: how many tones a picture uses, and how evenly."""

import numpy as np

from stages.quality.image_detectors.analysis import Grey


def entropy_bits(grey: Grey) -> float:
    """-sum p log2 p over the 256 grey levels of (h, w); in [0, 8], 0 for one level."""
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(max(0.0, -(shares * np.log2(shares)).sum()))
