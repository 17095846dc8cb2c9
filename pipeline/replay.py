"""Old samples that training goes on with: tars named by `train.replay`, or those of an earlier export's manifest."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.shards import expand
from pipeline.shards.expand import is_url
from pipeline.sidecars import read_json
from schemas.errors import RecipeError
from schemas.recipe import TRAIN_SPLIT


def replayed(given: Mapping[str, Any], folder: Path, setting: str = "train.replay") -> dict[str, Any]:
    """The setting with every tar by its absolute path.

    Args:
        given: `share`, and one of `shards` (paths, globs) and `manifest` (of an export of tars).
        folder: what relative paths are relative to.
        setting: what names them.

    Raises:
        RecipeError: neither or both of them, tars that are not there, or an export without tars.
    """
    if ("shards" in given) == ("manifest" in given):
        raise RecipeError(f"`{setting}` names one of `shards` and `manifest`: where its samples lie")
    rest = {name: value for name, value in given.items() if name not in ("shards", "manifest")}
    if "manifest" in given:
        return {**rest, "shards": tars_of(Path(os.path.normpath(folder / str(given["manifest"]))), f"`{setting}`")}
    named = [given["shards"]] if isinstance(given["shards"], str) else list(given["shards"])
    if far := [path for path in named if is_url(path)]:
        raise RecipeError(f"`{setting}` names {far[0]!r}; expected tars in a file system that every worker sees")
    return {**rest, "shards": expand(tuple(os.path.normpath(folder / path) for path in named))}


def tars_of(manifest: Path, who: str = "`train.replay`") -> list[str]:
    """The tars to train on of an export, by its manifest.json, which `who` named.

    Raises:
        RecipeError: no such manifest, or no tars in it.
    """
    try:
        facts = read_json(manifest)
        shards = [shard["url"] for shard in facts["shards"] if shard["split"] in ("", TRAIN_SPLIT)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{who} names {manifest}, which is no export's manifest.json: {error}") from error
    tars = [str(manifest.parent / url) for url in shards if url.endswith(".tar")]
    if not tars:
        kind = facts["kind"] if facts.get("materialized", True) else "materialize: false"
        raise RecipeError(f"the export of {manifest} has no tars ({kind}); name one of kind webdataset")
    if missing := [tar for tar in tars if not os.path.exists(tar)]:
        raise RecipeError(f"{manifest} names {missing[0]}, which is not there; export it again")
    return tars
