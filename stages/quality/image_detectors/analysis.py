"""Sizes at which detectors look at a picture: one bounds the work (`stages.text_regions`), one makes values compare."""

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]


def scaled_to(grey: Grey, pixels: int) -> Grey:
    """(h, w) of about `pixels` pixels, reduced or enlarged."""
    from PIL import Image

    if grey.size == pixels:
        return grey
    scale = (pixels / grey.size) ** 0.5
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    # Hamming reduces without ringing, which would draw lines beside every edge; it cannot enlarge.
    method = Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(grey).resize((width, height), method))
