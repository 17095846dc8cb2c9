"""A dataset that `datasets` saved to disk: which Arrow files it consists of."""

import json
from typing import Any

from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.rows import is_unsafe
from pipeline.shards.streams import open_bytes
from schemas.errors import RecipeError, ShardError

STATE, SPLITS = "state.json", "dataset_dict.json"


def saved_files(folder: str) -> list[str]:
    """The Arrow files of a folder that `Dataset.save_to_disk` wrote, in its order.

    Raises:
        RecipeError: a folder of splits, or no such folder, with what to do.
    """
    folder = folder.rstrip("/")
    state = _document(f"{folder}/{STATE}")
    if state is None:
        raise RecipeError(_otherwise(folder))
    listed = state.get("_data_files") if isinstance(state, dict) else None
    names = [one.get("filename") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if not names or any(not isinstance(name, str) or is_unsafe(name) for name in names):
        raise RecipeError(f"{folder}/{STATE} names no data files; expected what `Dataset.save_to_disk` writes")
    if state.get("_indices_data_files"):
        raise RecipeError(f"{folder} is a view of other rows (an indices mapping); save it again with `save_to_disk`")
    return [f"{folder}/{name}" for name in names]


def _otherwise(folder: str) -> str:
    splits = _document(f"{folder}/{SPLITS}")
    if isinstance(splits, dict) and isinstance(splits.get("splits"), list):
        names = [str(name) for name in splits["splits"]]
        return (
            f"`huggingface: {folder}` is a dataset of the splits {', '.join(names) or 'none'}; "
            f"name one, e.g. `huggingface: {folder}/{names[0] if names else 'train'}`"
        )
    hint = "save it with `Dataset.save_to_disk(FOLDER)`"
    if _has(folder, "**/*.parquet"):
        hint = f"it holds Parquet: name `parquet: {folder}/**/*.parquet`"
    return f"`huggingface: {folder}` is no saved dataset ({STATE} is missing); {hint}"


def _document(path: str) -> Any:
    """A JSON file; None where it is missing or is none."""
    try:
        with open_bytes(path) as stream:
            return json.load(stream)
    except (ShardError, OSError, ValueError, RecursionError):
        return None


def _has(folder: str, pattern: str) -> bool:
    if is_url(folder):
        filesystem, inside = filesystem_of(folder)
        return bool(filesystem.glob(f"{inside}/{pattern}"))
    import glob

    return bool(glob.glob(f"{glob.escape(folder)}/{pattern}", recursive=True))
