"""Paths in settings are relative to the recipe, wherever the command is given and wherever the workers run."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from stages.file_identity import PathMark

LOCAL = "local-dir:"


def rooted(model: type[BaseModel], settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a model with absolute paths in place of relative ones, nested models included.

    A text that begins with `./`, `../` or `local-dir:` is a path. So is a setting of the type `Located` where something
    of that name lies in the recipe's folder; else it is left as it is, and may be a name.
    """
    return {name: _rooted(model, name, value, folder) for name, value in settings.items()}


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that a setting may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_of(part)


def _rooted(model: type[BaseModel], name: str, value: Any, folder: Path) -> Any:
    field = model.model_fields.get(name)
    if isinstance(value, dict):
        choices = list(models_of(field.annotation)) if field else []
        inner = next((choice for choice in choices if _kind(choice) == value.get("kind")), BaseModel)
        return rooted(inner, value, folder)
    if not isinstance(value, str):
        return value
    marked = field is not None and _is_marked(field.annotation, field.metadata)
    return _absolute(value, folder, marked)


def _kind(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return field.default if field else None


def _is_marked(annotation: Any, metadata: list[Any]) -> bool:
    inner = [(part, list(getattr(part, "__metadata__", ()))) for part in get_args(annotation)]
    return any(isinstance(mark, PathMark) for mark in metadata) or any(_is_marked(*part) for part in inner)


def _absolute(value: str, folder: Path, marked: bool) -> str:
    prefix, path = (LOCAL, value.removeprefix(LOCAL)) if value.startswith(LOCAL) else ("", value)
    if prefix or path.startswith(("./", "../")) or (marked and path and (folder / path).exists()):
        return prefix + os.path.normpath(folder / path)
    return value
