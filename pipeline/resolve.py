"""A recipe becomes methods, shards and addresses; whatever cannot work is refused here, before Ray starts."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.fingerprints import (
    fingerprint,
    index_address,
    inputs_of,
    source_address,
    split_by_source,
    stage_addresses,
)
from pipeline.fits import Pins, find_pins
from pipeline.places import models_of, rooted
from pipeline.shards import Container, containers
from pipeline.shards.expand import is_url
from pipeline.sidecars import Workspace
from schemas.columns import CAPTION, CAPTIONS, COLUMNS, IMAGE, IMAGE_EMBEDDING, PROVIDED
from schemas.errors import RecipeError
from schemas.recipe import BASELINES, Recipe, Shards, Step, step_names
from schemas.tables import EVAL_ROLE, POOL_ROLE, REFERENCE_ROLE, TARGET_ROLE
from stages.budget import Budget
from stages.fitted_stage import FittedStage
from stages.kinds import Step as Method
from stages.kinds import kinds, load_plugin
from stages.mixer import Mixer
from stages.rule import Rule
from stages.selector import Selector
from stages.stage import Stage

PLACES = ("shards", "parquet", "huggingface", "folder", "root")
"""Settings of a source that are paths."""


@dataclass(frozen=True)
class Input:
    """One shard of the pool, the target, the held-out set or a reference set."""

    role: str
    source: str
    container: Container

    @cached_property
    def index_address(self) -> str:
        """Folder name of its index sidecar."""
        return index_address(self.container.settings())


@dataclass(frozen=True)
class Resolved:
    """A recipe with its methods, shards and addresses in hand."""

    recipe: Recipe
    folder: Path
    """Paths in the recipe are relative to it."""
    workspace: Workspace
    stages: tuple[Stage, ...]
    rules: tuple[Rule, ...]
    mixer: Mixer | None
    inputs: tuple[Input, ...]
    asked: dict[str, str]
    """Stage kind -> what it is by settings and inputs, whatever is learned: its name in pins and fingerprints."""
    addresses: dict[str, str]
    """Stage name -> where its sidecars lie, see `address`; those that wait for a fit join when scoring learned it."""
    plugins: tuple[str, ...]
    plugin_digests: dict[str, str]
    """Kind -> SHA-256 of the user's file that defines it."""
    pins: Pins | None = None
    """What `fits: RUN` of the recipe pins."""
    fits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage kind -> its fit as run.json names it, once it is known."""
    contenders: dict[str, Selector] = field(default_factory=dict)
    """What `compare` of the recipe names: name -> selector with the common budget, baselines first."""

    @property
    def export_folder(self) -> Path:
        """Where the exported shards go; what is meant for an object store is made in the workspace first."""
        named = self.recipe.export.folder if self.recipe.export else None
        return self.folder / named if named and not is_url(named) else self.workspace.root / "export" / self.recipe.name

    @property
    def export_url(self) -> str | None:
        """Where the export is put when it is whole, if that is an object store."""
        named = self.recipe.export.folder if self.recipe.export else None
        return named if named and is_url(named) else None

    @cached_property
    def rule_names(self) -> tuple[str, ...]:
        """Per rule, what the ledger calls it: its kind, numbered where there are several of one kind."""
        return tuple(step_names([rule.kind for rule in self.rules]))

    @cached_property
    def by_source(self) -> frozenset[str]:
        """Kinds whose sidecars are those of one source."""
        return split_by_source(self.stages)

    def address(self, kind: str, source: str) -> str:
        """Folder name of a stage's sidecars of a source's shards."""
        return source_address(self.addresses[kind], source) if kind in self.by_source else self.addresses[kind]

    def with_fit(self, kind: str, line: dict[str, Any]) -> "Resolved":
        """The same with one fit more, and the addresses that it settles."""
        fits = {**self.fits, kind: line}
        known = {name: fit["sha256"] for name, fit in fits.items()}
        return replace(self, fits=fits, addresses=stage_addresses(self.stages, self.plugin_digests, known))

    def roles(self, role: str) -> list[Input]:
        """The shards of one role."""
        return [item for item in self.inputs if item.role == role]

    def method_identity(self, method: Rule | Mixer) -> dict[str, Any]:
        """What a rule's or mixer's outcome depends on beside the rows."""
        plugin = {"plugin": self.plugin_digests[method.kind]} if method.kind in self.plugin_digests else {}
        settings = method.identity() if isinstance(method, Mixer) else method.model_dump(mode="json")
        return {"version": method.version, **plugin, **settings}

    def fit_key(self, method: Rule | Mixer) -> str:
        """What a fit is of: the method with its settings, and what is asked for of the scores that it reads.

        Fits of stages are no part of it: a run that pins has those of the pinned run.
        """
        writers = {field.name: self.asked[stage.name] for stage in self.stages for field in stage.writes}
        read = {writers[column] for column in method.columns() if column in writers}
        return fingerprint([self.method_identity(method), sorted(read)])

    def identity(self) -> dict[str, Any]:
        """What the recipe asks for, free of paths, hosts and listing order."""
        recipe = self.recipe
        export = recipe.export.identity() if recipe.export else None
        return {
            "name": recipe.name,
            "seed": recipe.seed,
            "score": self.asked,
            "select": [self.method_identity(rule) for rule in self.rules],
            "mix": self.method_identity(self.mixer) if self.mixer else None,
            "export": export,
            "holds_out_target": recipe.train is not None and recipe.train.eval is None,
            **({"fits": self.pins.identity()} if self.pins else {}),
        }

    def recipe_fingerprint(self) -> str:
        """Address of the recipe's meaning."""
        return fingerprint(self.identity())


def load_recipe(path: Path) -> Recipe:
    """Read a YAML recipe.

    Raises:
        RecipeError: no such file, no YAML mapping, or a key or value that does not fit, with the nearest name.
    """
    if not path.is_file():
        raise RecipeError(f"recipe {str(path)!r} is not a file; `cuvee init NAME` writes one to start from")
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # YAML's dates and long numbers raise plain ones
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path} holds a {type(document).__name__}; expected a mapping with `name`, `pool`, ...")
    recipe: Recipe = validated(Recipe, document, str(path))
    return recipe


def validated(model: type[BaseModel], document: dict[str, Any], where: str) -> Any:
    """`model` made from `document`; a mismatch is refused in the user's words, with the nearest name."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        lines = [_explained(model, problem) for problem in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(lines)) from error


def _explained(model: type[BaseModel], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        found = "" if problem["type"] == "missing" else f", found {_shown(problem['input'])}"
        return f"{place or 'recipe'}: {problem['msg'].removeprefix('Value error, ')}{found}"
    names = _field_names(model, problem["loc"][:-1])
    return f"{place}: unknown key{nearest(str(problem['loc'][-1]), names)}"


def _shown(value: Any) -> str:
    """A value, or the keys of a mapping: its values may be what nobody should see in a log."""
    return f"a mapping with {', '.join(map(str, value))}" if isinstance(value, dict) else f"{value!r:.80}"


def _field_names(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    choices = [model]
    for part in place:
        field = choices[0].model_fields.get(part) if isinstance(part, str) else None
        if field is not None:
            choices = list(models_of(field.annotation)) or choices
        else:  # the tag of a union
            choices = [
                m for m in choices if "kind" in m.model_fields and m.model_fields["kind"].default == part
            ] or choices
    return list(choices[0].model_fields)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    known = sorted(known)
    close = get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def resolve(path: Path, *, models: bool = True, trials: bool = True) -> Resolved:
    """Load and check a recipe.

    Args:
        path: the YAML file; its paths are relative to its folder.
        models: also let each stage check that its model loads, and the mixer what it reads.
        trials: the mixer's table of pilot runs has to be there; not for the command that makes it.

    Raises:
        RecipeError: with what was found, what was expected and what to do.
    """
    return resolve_recipe(load_recipe(path), path.resolve().parent, models=models, trials=trials)


def resolve_recipe(recipe: Recipe, folder: Path, *, models: bool = True, trials: bool = True) -> Resolved:
    """The same of a recipe in hand, whose paths are relative to `folder`."""
    plugins = tuple(str((folder / plugin).resolve()) for plugin in recipe.plugins)
    own = [Path(plugin) for plugin in plugins]
    files = {load_plugin(path).__name__: path for path in own}
    stages = _stages(kinds(Stage, own), recipe.score, folder)
    rules = tuple(_methods(kinds(Rule, own), "select", recipe.select, folder))
    mixer = next(iter(_methods(kinds(Mixer, own), "mix", [recipe.mix], folder))) if recipe.mix else None
    contenders = _contenders(kinds(Rule, own), recipe, folder)
    _columns_line_up(recipe, stages, rules, mixer, contenders)
    inputs = tuple(_inputs(recipe, folder))
    _refuse_doubled(inputs)
    if models:  # last: a check may load or fetch a model
        for stage in stages:
            stage.check()
        _widths_agree(stages)
    if mixer is not None and models and (trials or mixer.trials_file() is None):
        mixer.check(sorted(source.source for source in recipe.pool))
    methods: list[Stage | Rule | Mixer] = [*stages, *rules, *contenders.values(), *([mixer] if mixer else [])]
    origin = {method.kind: files.get(type(method).__module__) for method in methods}
    digests = {kind: hashlib.sha256(file.read_bytes()).hexdigest() for kind, file in origin.items() if file}
    resolved = Resolved(
        recipe=recipe,
        folder=folder,
        workspace=Workspace((folder / recipe.workspace).resolve()),
        stages=stages,
        rules=rules,
        mixer=mixer,
        inputs=inputs,
        asked=stage_addresses(stages, digests),
        addresses=stage_addresses(stages, digests, {}),
        plugins=plugins,
        plugin_digests=digests,
        contenders=contenders,
    )
    return replace(resolved, pins=_pins(resolved)) if recipe.fits else resolved


def folders(resolved: Resolved) -> dict[str, str]:
    """Where sidecars lie: `index N` per way of reading a container, a kind, or `KIND of SOURCE` where they differ."""
    indexes = sorted({item.index_address for item in resolved.inputs})
    found = {f"index {number}": name for number, name in enumerate(indexes)}
    sources = sorted({item.source for item in resolved.inputs})
    for kind, address in resolved.addresses.items():
        split = kind in resolved.by_source
        found |= {f"{kind} of {s}": resolved.address(kind, s) for s in sources} if split else {kind: address}
    return found


def _pins(resolved: Resolved) -> Pins:
    named = resolved.recipe.fits or ""
    folder = (resolved.folder / named).resolve() if "/" in named else resolved.workspace.run(named)
    if not folder.is_dir():
        runs = [path.parent.name for path in folder.parent.glob("*/run.json")]
        raise RecipeError(f"`fits`: there is no run {str(folder)!r}{nearest(folder.name, runs)}")
    mixer = resolved.fit_key(resolved.mixer) if resolved.mixer else None
    learning = [stage.name for stage in resolved.stages if isinstance(stage, FittedStage)]
    keys = {kind: resolved.asked[kind] for kind in learning}
    return find_pins(folder, [resolved.fit_key(rule) for rule in resolved.rules], mixer, keys)


def _refuse_doubled(inputs: Iterable[Input]) -> None:
    places = [(item.role, item.source, item.container.path) for item in inputs]
    if (
        twice := sorted({place for place in places if places.count(place) > 1})
        if len(set(places)) < len(places)
        else []
    ):
        raise RecipeError(f"{twice[0][2]} stands twice in source {twice[0][1]!r}; name each shard or table once")


def _methods(known: dict[str, type[Method]], place: str, steps: Iterable[Step], folder: Path) -> Iterable[Method]:
    for number, step in enumerate(steps):
        yield _method(known, f"{place}[{number}]", step, folder, {})


def _method(known: dict[str, type[Method]], place: str, step: Step, folder: Path, shared: dict[str, Any]) -> Method:
    if step.kind not in known:
        raise RecipeError(f"{place}: unknown kind {step.kind!r}{nearest(step.kind, known)}")
    settings = rooted(known[step.kind], step.settings(), folder)
    made: Method = validated(known[step.kind], {"kind": step.kind, **shared, **settings}, f"{place} ({step.kind})")
    return made


def _contenders(known: dict[str, type[Rule]], recipe: Recipe, folder: Path) -> dict[str, Selector]:
    """The selectors to compare, each with the common budget; baselines that the recipe does not list come first."""
    if recipe.compare is None:
        return {}
    budget: Budget = validated(Budget, recipe.compare.settings(), "compare")
    listed = {step.kind for step in recipe.compare.selectors}
    found: dict[str, Selector] = {
        kind: _selector(known, f"compare ({kind})", Step(kind=kind), folder, budget)
        for kind in BASELINES
        if kind not in listed
    }
    for number, step in enumerate(recipe.compare.selectors):
        place, name = f"compare.selectors[{number}]", step.name or step.kind
        if name in found:
            raise RecipeError(f"{place}: {name!r} stands twice; give it another `name`")
        found[name] = _selector(known, place, step, folder, budget)
    return found


def _selector(known: dict[str, type[Rule]], place: str, step: Step, folder: Path, budget: Budget) -> Selector:
    selectors: dict[str, type[Rule]] = {kind: cls for kind, cls in known.items() if issubclass(cls, Selector)}
    if step.kind in known and step.kind not in selectors:
        raise RecipeError(
            f"{place}: {step.kind!r} is a rule without a budget, not a selector; put it under `select`, where it is "
            f"applied before all of them; selectors: {', '.join(selectors)}"
        )
    if own := sorted(Budget.model_fields.keys() & step.settings().keys()):
        raise RecipeError(
            f"{place} ({step.kind}): `{own[0]}` is given once, under `compare`, for all; leave it out here"
        )
    made = _method(selectors, place, step, folder, budget.facts())
    assert isinstance(made, Selector)
    return made


def _stages(known: dict[str, type[Stage]], steps: Iterable[Step], folder: Path) -> tuple[Stage, ...]:
    """The score steps; settings shared with the step whose columns one reads are filled in, or have to agree."""
    stages: list[Stage] = []
    for number, step in enumerate(steps):
        place = f"score[{number}]"
        shared = _shared(known[step.kind], stages, place) if step.kind in known else {}
        stage = _method(known, place, step, folder, shared)
        for name, value in shared.items():
            if (found := getattr(stage, name)) != value:
                raise RecipeError(
                    f"{place} ({step.kind}): `{name}` is {found!r}, but the step whose columns it reads has {value!r}; "
                    "leave it out here"
                )
        stages.append(stage)
    return tuple(stages)


def _shared(cls: type[Stage], earlier: Sequence[Stage], place: str) -> dict[str, Any]:
    if not cls.shares:
        return {}
    written = {field.name: stage for stage in earlier for field in stage.writes}
    for read in cls.reads:
        _require(read.name, {*written, *(column.name for column in PROVIDED)}, f"{place} reads")
    writers = [written[field.name] for field in cls.reads if field.name in written]
    return {name: getattr(stage, name) for stage in writers for name in cls.shares if hasattr(stage, name)}


def _widths_agree(stages: Sequence[Stage]) -> None:
    """Refuse a reader that expects longer or shorter lists than the column's writer makes."""
    known: dict[str, int] = {}
    for stage in stages:
        for name, width in stage.widths().items():
            if known.setdefault(name, width) != width:
                raise RecipeError(
                    f"score step {stage.name!r} expects {width} numbers in {name!r}, which has {known[name]}; "
                    "name weights made for this model"
                )


def _columns_line_up(
    recipe: Recipe,
    stages: Sequence[Stage],
    rules: Sequence[Rule],
    mixer: Mixer | None,
    contenders: dict[str, Selector],
) -> None:
    written = {field.name for field in PROVIDED}
    names = [stage.name for stage in stages]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"score step {doubled[0]!r} stands twice; a column has one writer")
    for stage in stages:
        for read in inputs_of(stage):
            _require(read.name, written, f"score step {stage.name!r} reads")
        _may_learn(recipe, stage)
        if twice := written & {field.name for field in stage.writes}:
            raise RecipeError(f"score step {stage.name!r} writes {sorted(twice)[0]!r}, which another step writes too")
        written |= {field.name for field in stage.writes}
    readable = written - {"image"}
    deciding: list[tuple[str, Rule]] = [(f"rule {rule.kind!r}", rule) for rule in rules]
    deciding += [(f"selector {name!r} of `compare`", selector) for name, selector in contenders.items()]
    readers = deciding + ([(f"mixer {mixer.kind!r}", mixer)] if mixer else [])
    for name, method in readers:
        for column in method.columns():
            _require(column, readable, f"{name} reads")
        if method.needs_target() and recipe.target is None:
            raise RecipeError(f"{name} needs a target and the recipe names none; add `target: {{shards: ...}}`")
    if mixer is not None and mixer.needs_proxy() and recipe.train is None:
        raise RecipeError(
            f"mixer {mixer.kind!r} trains proxy connectors by the settings of `train`, which the recipe lacks; add it"
        )
    for who, rule in deciding:
        for name in rule.needs_references():
            if name not in recipe.references:
                hint = nearest(name, recipe.references)
                raise RecipeError(f"{who} compares with {name!r}, which is none of `references`{hint}")
    _merged_last(stages, rules)
    _exported_columns(recipe, stages, rules)
    if recipe.train is not None:
        _require(recipe.train.vision, {stage.name for stage in stages}, "`train.vision` names the score step")
        if recipe.target is None and recipe.train.eval is None:
            raise RecipeError("`train` needs held-out pairs: name `train.eval` or a `target`")


def _merged_last(stages: Sequence[Stage], rules: Sequence[Rule]) -> None:
    """Refuse a rule that would judge a sample by its own caption and let those pass that were merged into it."""
    of_captions = {CAPTION.name}
    for stage in stages:
        if of_captions & {field.name for field in inputs_of(stage)}:
            of_captions |= {field.name for field in stage.writes if not field.name.endswith(IMAGE_EMBEDDING.name)}
    merging = ""
    for rule in rules:
        if rule.merges_captions():
            merging = merging or rule.kind
        elif merging and not isinstance(rule, Selector) and (read := sorted(of_captions & set(rule.columns()))):
            raise RecipeError(
                f"rule {rule.kind!r} judges by {', '.join(read)}, after {merging!r} has merged captions, which would "
                f"pass unseen; put {rule.kind!r} before {merging!r}"
            )


def _exported_columns(recipe: Recipe, stages: Sequence[Stage], rules: Sequence[Rule]) -> None:
    columns = recipe.export.columns if recipe.export else ()
    merging = [rule.kind for rule in rules if rule.merges_captions()]
    scores = {field.name for stage in stages for field in stage.writes} | ({CAPTIONS.name} if merging else set())
    for column in columns:
        _require(column, scores, "`export.columns` names")
    if merging and recipe.export and CAPTIONS.name not in columns:
        raise RecipeError(
            f"rule {merging[0]!r} merges captions, and the export would lose them; add `{CAPTIONS.name}` to "
            "`export.columns`"
        )


def _may_learn(recipe: Recipe, stage: Stage) -> None:
    if not isinstance(stage, FittedStage):
        return
    if IMAGE in inputs_of(stage):
        raise RecipeError(
            f"score step {stage.name!r} learns from many rows and reads `image`; expected columns of other steps: "
            "let an ordinary step write what it needs of the image"
        )
    if TARGET_ROLE in stage.learns_from and recipe.target is None:
        raise RecipeError(f"score step {stage.name!r} needs a target and the recipe names none; add `target: ...`")


def _require(name: str, written: set[str], who: str) -> None:
    if name in written:
        return
    known = COLUMNS.get(name)
    hint = "; it is known, but no score step of this recipe writes it" if known is not None else nearest(name, written)
    raise RecipeError(f"{who} {name!r}, which nothing writes{hint}")


def _inputs(recipe: Recipe, folder: Path) -> Iterable[Input]:
    places: list[tuple[str, str, Shards]] = [(POOL_ROLE, source.source, source) for source in recipe.pool]
    if recipe.target is not None:
        places.append((TARGET_ROLE, "target", recipe.target))
    if recipe.train is not None and recipe.train.eval is not None:
        places.append((EVAL_ROLE, "eval", recipe.train.eval))
    places += [(REFERENCE_ROLE, name, shards) for name, shards in recipe.references.items()]
    for role, source, shards in places:
        for container in containers(_located(shards, folder)):
            yield Input(role, source, container)


def _located(shards: Shards, folder: Path) -> Shards:
    def rooted(pattern: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if pattern is None:
            return None
        if isinstance(pattern, tuple):
            return tuple(str(rooted(part)) for part in pattern)
        return pattern if "://" in pattern else os.path.normpath(folder / pattern)

    places = {name: rooted(getattr(shards, name)) for name in PLACES}
    return shards.model_copy(update=places)
