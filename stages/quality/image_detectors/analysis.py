"""The sizes at which detectors look at a picture: one that bounds the work, one that makes values compare."""

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

MOST_PIXELS = 1 << 18
"""A larger picture is reduced to this many (512 x 512) before anything looks at it."""


def reduced(grey: Grey, most_pixels: int = MOST_PIXELS) -> Grey:
    """(h, w) at most `most_pixels`, its proportions kept as far as whole pixels can; a smaller one as it is."""
    return grey if grey.size <= most_pixels else _scaled(grey, most_pixels)


def scaled_to(grey: Grey, pixels: int) -> Grey:
    """(h, w) of about `pixels` pixels, reduced or enlarged."""
    return grey if grey.size == pixels else _scaled(grey, pixels)


def _scaled(grey: Grey, pixels: int) -> Grey:
    from PIL import Image

    scale = (pixels / grey.size) ** 0.5
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    # Hamming reduces without ringing, which would draw lines beside every edge; it cannot enlarge.
    method = Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(grey).resize((width, height), method))
