"""Finds every method by its `kind`: any Stage, Rule or Mixer class in a module below this package, or in a plugin."""

import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import xxhash

import stages
from schemas.errors import RecipeError
from stages.mixer import Mixer
from stages.rule import Rule
from stages.stage import Stage

Step = TypeVar("Step", Stage, Rule, Mixer)


@cache
def _import_rooms() -> None:
    for module in pkgutil.walk_packages(stages.__path__, "stages."):
        importlib.import_module(module.name)


def load_plugin(path: Path) -> ModuleType:
    """Import a user's file of stages, rules or mixers; its classes are then found by kind like ours."""
    name = f"cuvee_plugin_{path.stem}_{xxhash.xxh3_64_hexdigest(str(path.resolve()).encode())}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise RecipeError(f"plugin {str(path)!r} is not a Python file; name a .py file that defines a stage or rule")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(f"plugin {str(path)!r} does not load: {type(error).__name__}: {error}") from error
    return module


def kinds(of: type[Step]) -> dict[str, type[Step]]:
    """Every known kind of Stage, Rule or Mixer, sorted by name."""
    _import_rooms()
    found: dict[str, type[Step]] = {}
    pending = list(of.__subclasses__())
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if isinstance(kind := cls.model_fields["kind"].default, str):
            found[kind] = cls
    return dict(sorted(found.items()))
