"""The frozen models a YAML recipe becomes; nothing here knows which methods exist."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
SPLIT = r"^[A-Za-z]\w*$"
CHANCE = "random"
"""The kind of the selector that draws by hash(seed, uid)."""
BASELINES = (CHANCE, "longest_caption")
"""Kinds that are in every comparison: chance, and a preference that knows no target and no image."""
TRAIN_SPLIT = "train"
"""The part of a split export that the connector is trained on."""
ROW_COLUMNS = ("key", "image", "image_suffix", "caption", "json")
"""What stands first in a row of the formats that have columns; no score can be called so."""


class Model(BaseModel):
    """Frozen and strict: an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(BaseModel):
    """One line under `score`, `select` or `mix`: a kind and its settings, checked by the method itself."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    def settings(self) -> dict[str, Any]:
        """Everything beside the kind."""
        return dict(self.model_extra or {})


def step_names(kinds: Sequence[str]) -> list[str]:
    """What steps go by: their kind, and from the second of a kind on `<kind>_2`, `<kind>_3`, in the recipe's order.

    The first keeps the bare kind, so that a step added behind it renames nothing. No two names are equal, whatever
    plugins call their kinds.
    """
    taken = set(kinds)
    names: list[str] = []
    for kind in kinds:
        name, number = kind, 1
        while name in names or (number > 1 and name in taken):
            number += 1
            name = f"{kind}_{number}"
        names.append(name)
    return names


class Shards(Model):
    """Where samples lie: WebDataset tars, Parquet, a saved Hugging Face dataset, or an image folder with a table."""

    shards: str | tuple[str, ...] | None = Field(
        default=None, description=".tar, .tar.gz or .tar.zst: paths, globs, braces, URLs"
    )
    parquet: str | tuple[str, ...] | None = Field(default=None, description="Parquet with image bytes or paths")
    huggingface: str | tuple[str, ...] | None = Field(
        default=None, description="folder that `Dataset.save_to_disk` of Hugging Face datasets wrote"
    )
    folder: str | tuple[str, ...] | None = Field(default=None, description="image folder, listed by `table`")
    table: str | None = Field(default=None, description="JSONL or CSV inside the folder: image path and caption")
    root: str | None = Field(
        default=None, description="parquet with image paths: the folder they are relative to; default: the file's own"
    )
    image: str = Field(default="image", description="column with the image's bytes (parquet, huggingface) or path")
    caption: str = Field(default="caption", description="column with the caption (parquet, huggingface, folder)")

    @model_validator(mode="after")
    def _one_place(self) -> "Shards":
        places = ("shards", "parquet", "huggingface", "folder")
        named = [name for name in places if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"found {named or 'none'} of `{'`, `'.join(places)}`; name exactly one")
        if (self.folder is None) != (self.table is None):
            raise ValueError("`folder` and `table` belong together: an image folder is listed by a JSONL or CSV table")
        if self.root is not None and self.parquet is None:
            raise ValueError("`root` belongs to `parquet` whose image column holds paths; a folder is its own root")
        return self


class Source(Shards):
    """One source of the pool."""

    source: str = Field(pattern=NAME)


class Export(Model):
    """What to write: shards of an exact number of samples."""

    kind: Literal["webdataset", "parquet", "mds", "energon", "huggingface"] = "webdataset"
    samples: int | None = Field(
        default=None, gt=0, description="samples drawn, repeats included; default: every survivor once"
    )
    samples_per_shard: int = Field(default=1000, gt=0)
    columns: tuple[str, ...] = Field(
        default=(), description="scores added to every sample: as KEY.cuvee.json in tars, as columns elsewhere"
    )
    split: dict[Annotated[str, Field(pattern=SPLIT)], Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, description="name -> share of the images, e.g. {train: 0.99, holdout: 0.01}; copies stay together"
    )
    folder: str | None = Field(default=None, description="default: WORKSPACE/export/<recipe name>")
    materialize: bool = Field(
        default=True, description="false: write no shards, only which samples, how often, and each source's weight"
    )

    def identity(self) -> dict[str, Any]:
        """What the exported bytes depend on; that shards are written is said only where they are not."""
        facts = self.model_dump(mode="json", exclude={"folder", "materialize"})
        return facts if self.materialize else {**facts, "materialize": False}

    @model_validator(mode="after")
    def _shares(self) -> "Export":
        if self.columns and not self.materialize:
            raise ValueError("`columns` go along in shards, and `materialize: false` writes none; leave out one")
        if taken := sorted(set(ROW_COLUMNS) & set(self.columns)):
            raise ValueError(f"`columns` names {taken[0]!r}, which every row has already; rename the score")
        if self.split is not None and abs(sum(self.split.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of `split` add up to {sum(self.split.values()):.9g}; make them add up to 1")
        if self.split is not None and "all" in self.split:
            raise ValueError("a split cannot be called 'all', which readers take for every split; choose another name")
        return self


class Train(BaseModel):
    """The connector to train as proof of gain; the trainer checks what stands beside `vision` and `eval`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    vision: str = Field(default="clip", description="kind of the score step whose image tower is used")
    eval: Shards | None = Field(
        default=None, description="held-out pairs; default: a fifth of the target, by image content"
    )

    def settings(self) -> dict[str, Any]:
        """What the trainer reads."""
        return dict(self.model_extra or {})


class Compared(Step):
    """A selector under `compare`: its kind and settings, but for the budget, which is given once for all."""

    name: str | None = Field(
        default=None, pattern=NAME, description="what it is called in the table; default: the kind"
    )


class Compare(BaseModel):
    """Selectors that `cuvee compare` holds side by side; beside these keys stands the budget, as selectors have it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    selectors: tuple[Compared, ...] = Field(min_length=1)
    draws: int = Field(default=20, ge=3, description="random draws that every selector is held against")

    def settings(self) -> dict[str, Any]:
        """The budget."""
        return dict(self.model_extra or {})


class Trials(Model):
    """Pilot runs on designed mixtures of the pool's sources: what `cuvee trials` does."""

    design: Step = Field(
        default=Step(kind="d_optimal"),
        description="which: d_optimal, dirichlet, given, lattice or space_filling, or a mapping with its settings",
    )
    count: int = Field(ge=2, description="mixtures")
    budgets: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        description="two or more numbers of samples drawn, repeats included; every mixture is run with each"
    )
    seeds: int = Field(default=2, gt=0, description="runs of a mixture and a budget, told apart by start and order")
    pilot: Step = Field(
        default=Step(kind="connector"),
        description="what is trained: connector, by the settings of `train`, or contrastive_probe",
    )
    held_out: Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="of each source: samples, or a share of the images; measured on, never drawn"
    )
    max_repeats: int = Field(default=4, gt=0, description="how often a sample is drawn at most, at the largest budget")
    prior: Literal["natural", "uniform"] = Field(default="natural", description="where designs begin")

    @field_validator("design", "pilot", mode="before")
    @classmethod
    def _named(cls, step: Any) -> Any:
        return {"kind": step} if isinstance(step, str) else step

    @field_validator("budgets")
    @classmethod
    def _several(cls, budgets: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(budgets)) < 2:
            raise ValueError(
                f"found {len(set(budgets))} budget; how a mixture's worth changes with more data shows from 2 on: "
                "add one four times as large"
            )
        return tuple(sorted(set(budgets)))


class Recipe(Model):
    """Pool, target and budget in; scores, rules, a mixture, an export and a proof out."""

    name: str = Field(pattern=NAME)
    workspace: str = Field(description="folder for everything computed; relative to the recipe")
    seed: int = 0
    plugins: tuple[str, ...] = Field(default=(), description="Python files with stages, rules or mixers of your own")
    pool: tuple[Source, ...] = Field(min_length=1)
    max_bad_shards: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="unreadable shards a run goes on past: a count, or a share; default: 1 %, at least 10"
    )
    fits: str | None = Field(
        default=None,
        min_length=1,
        description="a run of this workspace, or the path of a run's folder: decide as it did",
    )
    target: Shards | None = None
    references: dict[Annotated[str, Field(pattern=NAME)], Shards] = Field(
        default_factory=dict,
        description="name -> samples that rules compare the pool with: evaluation sets, more targets",
    )
    score: tuple[Step, ...] = ()
    select: tuple[Step, ...] = ()
    mix: Step | None = None
    export: Export | None = None
    train: Train | None = None
    compare: Compare | None = Field(default=None, description="read by `cuvee compare`, and by nothing else")
    trials: Trials | None = Field(default=None, description="read by `cuvee trials`, and by nothing else")

    @field_validator("fits")
    @classmethod
    def _stays(cls, fits: str | None) -> str | None:
        if fits is not None and fits.rstrip("/").split("/")[-1] == "latest":
            raise ValueError("`latest` means another run after each run, and a name that changes is no pin; name a run")
        return fits

    @model_validator(mode="after")
    def _names(self) -> "Recipe":
        names = [source.source for source in self.pool]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"source {twice[0]!r} stands twice in the pool; give each source its own name")
        if reserved := sorted({"target", "eval"} & {*names, *self.references}):
            raise ValueError(f"the name {reserved[0]!r} is reserved; choose another for the source or reference")
        if both := sorted(set(names) & set(self.references)):
            raise ValueError(f"{both[0]!r} is a source of the pool and a reference; give each a name of its own")
        if self.mix is not None and self.export is None:
            raise ValueError("`mix` needs `export`: a mixture is drawn for a number of samples")
        if self.train is not None and self.export is None:
            raise ValueError("`train` needs `export`: the connector is trained on the exported shards")
        if self.train is not None and self.export and TRAIN_SPLIT not in (self.export.split or (TRAIN_SPLIT,)):
            raise ValueError(f"`train` needs a split called {TRAIN_SPLIT!r}, found {sorted(self.export.split or ())}")
        return self
