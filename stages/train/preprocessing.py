"""What an image tower does to an image before it sees it, told without loading its weights."""

import json
import os
from pathlib import Path

import xxhash

RESOLUTION = ("image_size",)
PREPROCESSING = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")


def preprocessing_identity(model: str, pretrained: str | None) -> str:
    """16 hex digits over resolution, mean, deviation, interpolation and the way of resizing.

    Args:
        model: open_clip name, `local-dir:PATH`, or the path of such a folder.
        pretrained: open_clip tag or weights file; None for a folder.
    """
    folder = model.removeprefix("local-dir:")
    if os.path.isdir(folder):
        facts = json.loads((Path(folder) / "open_clip_config.json").read_text())
        shape, shown = facts.get("model_cfg", facts), facts.get("preprocess_cfg", {})
    else:
        import open_clip

        shape = open_clip.get_model_config(model) or {}
        shown = open_clip.pretrained.get_pretrained_cfg(model, pretrained or "")
    size = {name: shape.get("vision_cfg", {}).get(name) for name in RESOLUTION}
    told = json.dumps([size, {name: shown.get(name) for name in PREPROCESSING}])
    return xxhash.xxh3_64_hexdigest(told.encode())
