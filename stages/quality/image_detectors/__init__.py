"""Classical detectors of what is wrong with a picture: see `stage.py`; one detector, one file."""

from stages.quality.image_detectors.stage import Detections, ImageDetectors, detect

__all__ = ["Detections", "ImageDetectors", "detect"]
