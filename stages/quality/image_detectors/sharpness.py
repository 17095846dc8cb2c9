"""Blur, as the variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000).

The value depends on the scale, so every picture is brought to the same number of pixels first, a small one enlarged:
the same scene at 224 and at 800 px gets values that one threshold can cut, and a thumbnail counts as what it is to a
model that sees it at 224 px. It also grows with contrast and with noise: a blurred picture with film grain passes for a
sharp one, a sharp white thing on white for a blurred one.
"""

import numpy as np

from stages.quality.image_detectors.analysis import Grey, scaled_to

ANALYSIS_PIXELS = 224 * 224


def sharpness(grey: Grey) -> float:
    """Variance of the four-neighbour Laplacian of (h, w) grey levels at `ANALYSIS_PIXELS`; >= 0, 0 for one colour."""
    levels = np.pad(scaled_to(grey, ANALYSIS_PIXELS), 1, mode="edge").astype(np.int32)
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    return float((around - 4 * levels[1:-1, 1:-1]).var(dtype=np.float64))
