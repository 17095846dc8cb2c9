"""The `device:` of a stage that runs a model, and what `auto` stands for."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator


def device_kind() -> str:
    """`cuda` or `cpu`, whichever this machine offers; torch is asked only where a driver is installed."""
    if sys.platform == "linux" and not any(Path(place).exists() for place in ("/dev/nvidiactl", "/dev/dxg")):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


Device = Annotated[
    Literal["auto", "cpu", "cuda"], AfterValidator(lambda device: device_kind() if device == "auto" else device)
]
"""`auto` becomes what the machine has that reads the recipe; its default needs `validate_default`."""
