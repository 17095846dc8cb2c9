"""Finds every method by its `kind`: any Stage, Rule, Mixer, Schedule or Connector below this package or in a plugin."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import xxhash

import stages
from schemas.errors import RecipeError
from stages.mixer import Mixer
from stages.rule import Rule
from stages.schedule import Schedule
from stages.stage import Stage
from stages.train.connectors.contract import Connector

Step = TypeVar("Step", Stage, Rule, Mixer, Schedule, Connector)
NETWORK = ("network", "bridge")
"""How the names of modules end that hold torch modules: they define no kind, and torch is loaded with them."""


@cache
def _import_rooms() -> None:
    for module in pkgutil.walk_packages(stages.__path__, "stages."):
        if not module.name.endswith(NETWORK):
            importlib.import_module(module.name)


PLUGIN = "cuvee_plugin_"


def load_plugin(path: Path) -> ModuleType:
    """Import a user's file of stages, rules or mixers, once for its content.

    Raises:
        RecipeError: no such file, or it does not load.
    """
    if not path.is_file():
        raise RecipeError(f"plugin {str(path)!r} is not a file; name a .py file that defines a stage, rule or mixer")
    name = PLUGIN + xxhash.xxh3_128_hexdigest(path.read_bytes())
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"plugin {str(path)!r} is not a Python file; name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(f"plugin {str(path)!r} does not load: {type(error).__name__}: {error}") from error
    return module


def kinds(of: type[Step], plugins: Sequence[Path] = ()) -> dict[str, type[Step]]:
    """Every known kind of Stage, Rule, Mixer, Schedule or Connector, by name: ours and those of plugins.

    Raises:
        RecipeError: a plugin does not load, or two files define one kind.
    """
    _import_rooms()
    ours = {load_plugin(path).__name__: path for path in plugins}
    found: dict[str, type[Step]] = {}
    pending = list(of.__subclasses__())
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        kind = cls.model_fields["kind"].default
        # A plugin of another recipe, or an older state of this one, may still be loaded in this process.
        if not isinstance(kind, str) or (cls.__module__.startswith(PLUGIN) and cls.__module__ not in ours):
            continue
        if kind in found:
            files = sorted(str(ours.get(c.__module__, c.__module__)) for c in (cls, found[kind]))
            raise RecipeError(f"kind {kind!r} is defined in {files[0]} and in {files[1]}; give yours another name")
        found[kind] = cls
    return dict(sorted(found.items()))
