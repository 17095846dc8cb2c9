"""What a connector training run is told; the frozen models behind a recipe's `train:`."""

import os
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from schemas.errors import ContractError, RecipeError
from stages.file_identity import Located
from stages.schedule import Schedule, schedule_of
from stages.train.budget import Budget
from stages.train.connectors.contract import Connector, connector_of
from stages.train.connectors.mlp import Mlp
from stages.train.continual import Infinite, Replay
from stages.train.execution import EXECUTION_SETTINGS, Execution
from stages.train.metrics.on_demand import OnDemand
from stages.train.model_files import folder_identity, local_folder
from stages.train.options.settings import OPTION_SETTINGS, OptionSettings
from stages.train.packing import Pack
from stages.train.preprocessing import preprocessing_identity
from stages.train.templates import Plain, Wording
from stages.train.text_only import TextOnly

if TYPE_CHECKING:
    from stages.train.vision_features import FeatureKey
    from stages.train.vision_tower import VisionTower

RARE = (
    "schedule", "replay", "start", "infinite", "inject_layer", "vision_layer", "templates", "pack", "share_prefix",
    "text_only", "metrics", *OPTION_SETTINGS, *EXECUTION_SETTINGS,
)  # fmt: skip
"""Settings that stand at their default in most runs."""


class TrainSettings(OptionSettings, Execution):
    """One comparison's settings, the same for every arm and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connector: Annotated[SerializeAsAny[Connector], BeforeValidator(connector_of)] = Mlp()
    """A kind by its name, or a kind with its settings."""
    vision_model: Located
    """open_clip name, `local-dir:PATH` or the path of such a folder; filled in from the recipe's score step."""
    vision_pretrained: Located | None = None
    language_model: Located
    """Folder of a transformers causal language model with its tokenizer, or a hub name in the local cache."""
    budget: Budget
    batch: int = Field(32, gt=0)
    learning_rate: float = Field(3e-4, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the rate rises linearly."""
    floor: float = Field(0.0, ge=0, le=1)
    """Where the cosine ends, as a share of `learning_rate`."""
    weight_decay: float = Field(0.0, ge=0)
    seeds: int = Field(5, gt=0)
    visual_tokens: int = Field(16, gt=0)
    """Most visual features per image; larger grids are average-pooled."""
    vision_layer: int = Field(-1, lt=0)
    """The tower's layer whose patches are read, from the last one back; LLaVA reads -2."""
    max_tokens: int = Field(32, gt=0)
    """Caption tokens read; longer captions are cut."""
    hidden: int | None = Field(None, gt=0)
    """Width between the two layers of a connector that has such; default: the language model's."""
    inject_layer: int = Field(0, ge=0)
    """Layer of the language model at whose input the visual tokens go in; 0: as input embeddings."""
    templates: tuple[Wording, ...] = Field((Plain(),), min_length=1)
    """What stands around image and caption; of several, one is drawn with each sample. Evaluation has the first."""
    pack: Pack | None = None
    """Put several samples in a row."""
    share_prefix: bool = False
    """Captions of one image in a batch share its visual tokens."""
    generated: int = Field(64, ge=0)
    """Held-out samples for which a caption is generated."""
    metrics: tuple[OnDemand, ...] = ()
    """Beside the usual ones: `mir`, `ima`, `mutual_knn` (per layer), `groups`, `style_leakage`, `experts`."""
    checkpoint_steps: int = Field(500, gt=0)
    """Steps between checkpoints of an unfinished run."""
    schedule: Annotated[SerializeAsAny[Schedule], BeforeValidator(schedule_of)] | None = None
    """Steers the weights of the sources in the curated arm."""
    replay: Replay | None = None
    """Old samples in every arm's batches."""
    text_only: TextOnly | None = None
    """Texts without images in every arm's batches; they train options inside the language model alone."""
    start: Located | None = None
    """Folder of a connector that every arm goes on from; default: new weights from the seed."""
    infinite: Infinite | None = None
    """In place of the cosine."""

    @model_validator(mode="after")
    def _annealed(self) -> "TrainSettings":
        if self.infinite is not None and self.infinite.anneal and not self.floor:
            raise ValueError("`infinite` anneals exponentially, which never reaches 0; set `floor`, e.g. 0.1")
        return self

    @model_validator(mode="after")
    def _budgeted(self) -> "TrainSettings":
        if self.schedule is not None and not self.budget.is_whole_steps:
            raise ValueError("`schedule` must know how many steps there are; give `budget` in steps, samples or epochs")
        if self.infinite is not None and self.rate == "one_cycle":
            raise ValueError("`infinite` and `rate: one_cycle` are two shapes of one rate; leave one of them out")
        if self.budget.reference_seconds is not None and self.reference_table is None:
            raise ValueError("a budget in `reference_seconds` needs `reference_table`, e.g. bench/rst_table.json")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("`compile` keeps what it needs by itself; leave out `gradient_checkpointing`")
        if self.workers_per_run > 1 and self.text_only and getattr(self.connector, "scope", "") == "global_batch":
            raise ValueError(
                "a router's `global_batch` is counted in passes that all workers of a run make, and with `text_only` "
                "one of them may have no image in its part; choose another `scope`, or leave out one of the three"
            )
        if self.batch % self.workers_per_run:
            raise ValueError(
                f"a batch of {self.batch} does not part evenly among {self.workers_per_run} `workers_per_run`"
            )
        return self

    @model_validator(mode="after")
    def _fitting_connector(self) -> "TrainSettings":
        refusal = self.connector.refusal(self.hidden, self.inject_layer, self.vision_layer)
        if refusal is not None:
            raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _texts_that_train(self) -> "TrainSettings":
        if self.text_only is None:
            return self
        if self.lora is None and (self.tune_norms is None or getattr(self.tune_norms, "of", "llm") == "vision"):
            raise ValueError(
                "`text_only` is seen by the language model alone, and nothing in it is trained, so the share would be "
                "wasted; leave it out, or set `lora` or `tune_norms: llm`"
            )
        if self.replay is not None and self.replay.share + self.text_only.share >= 1:
            raise ValueError("`replay` and `text_only` leave nothing of a batch to the arm's own samples")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps: the sample budget is rounded up to whole batches."""
        if self.budget.steps is not None:
            return self.budget.steps
        if self.budget.samples is None:
            raise ContractError(f"a budget like {self.budget!r} has no steps before its samples are known")
        return -(-self.budget.samples // self.batch)

    def sized(self, samples: int) -> "TrainSettings":
        """The same with a budget in samples, where it was one in epochs over so many samples."""
        if self.budget.epochs is None:
            return self
        return self.model_copy(
            update={"budget": Budget.model_validate({"samples": max(1, round(self.budget.epochs * samples))})}
        )

    @cached_property
    def language_folder(self) -> Path:
        """Where the language model's files lie.

        Raises:
            RecipeError: no such folder, and no such name in the local cache.
        """
        return local_folder(self.language_model)

    @cached_property
    def language_identity(self) -> str:
        """SHA-256 over the language model's files."""
        return folder_identity(self.language_folder)

    @cached_property
    def vision_identity(self) -> str:
        """SHA-256 over the tower's files; a released open_clip model is named by its tag."""
        if (folder := self.vision_folder) is not None:
            return folder_identity(folder)
        if self.vision_pretrained and os.path.isfile(self.vision_pretrained):
            weights = Path(self.vision_pretrained)
            return f"{self.vision_model}/{folder_identity(weights.parent, only=weights.name)}"
        return f"{self.vision_model}/{self.vision_pretrained}"

    @cached_property
    def feature_key(self) -> "FeatureKey":
        """What the visual features that the connector reads depend on."""
        from stages.train.vision_features import FeatureKey

        kind = self.connector.features
        count, layer = (self.visual_tokens, self.vision_layer) if kind == "patches" else (0, -1)
        shape = preprocessing_identity(self.vision_model, self.vision_pretrained)
        return FeatureKey(self.vision_identity, shape, kind, layer, count)

    def tower(self, device: str) -> "VisionTower":
        """The image tower, loaded, giving what the connector reads.

        Raises:
            CuveeError: it does not load.
        """
        from stages.train.vision_tower import load_tower

        kind, layer = self.connector.features, self.vision_layer
        return load_tower(self.vision_model, self.vision_pretrained, self.visual_tokens, device, kind, layer)

    @property
    def vision_folder(self) -> Path | None:
        """The tower's own folder; None for a model that open_clip knows by name."""
        path = self.vision_model.removeprefix("local-dir:")
        return Path(path) if path != self.vision_model or os.path.isdir(path) else None

    def identity(self) -> dict[str, Any]:
        """What a result depends on: every setting, with models by content; how often to checkpoint is none of it.

        Nor is where visual tokens come from: cached or online they are the same bits, so that finished jobs count and
        unfinished ones go on either way.

        What most runs do without is named only where it is set.
        """
        places = {"vision_model", "vision_pretrained", "language_model", "checkpoint_steps"}
        places |= {"features", "decode_threads"}
        models = {"vision": self.vision_identity, "language_model": self.language_identity}
        facts = self.model_dump(mode="json", exclude=places) | models
        facts |= self._connector_facts()
        if self.schedule is not None:
            facts["schedule"]["version"] = self.schedule.version
        if self.replay is not None:
            facts["replay"] = {"share": self.replay.share}
        if self.text_only is not None:
            facts["text_only"] = {"share": self.text_only.share}
        if self.start is not None:
            facts["start"] = folder_identity(Path(self.start))
        facts |= self.chosen
        if self.reference_table is not None:
            facts["reference_table"] = sha256(Path(self.reference_table).read_bytes()).hexdigest()
        facts["budget"] = {
            name: value for name, value in facts["budget"].items() if value or name in ("samples", "steps")
        }
        usual = {name: type(self).model_fields[name].default for name in RARE}
        return {name: value for name, value in facts.items() if name not in usual or getattr(self, name) != usual[name]}

    def _connector_facts(self) -> dict[str, Any]:
        """An MLP is told by its name and `hidden`, wherever that was said; any other connector by its settings."""
        connector = self.connector
        if isinstance(connector, Mlp):
            return {"connector": connector.kind, "hidden": connector.hidden or self.hidden}
        return {"connector": connector.identity()}

    def located(self) -> "TrainSettings":
        """The same with absolute paths, for a worker that runs in another folder."""
        folders: dict[str, Any] = {"language_model": os.path.abspath(self.language_folder)}
        if self.vision_folder is not None:
            folders["vision_model"] = os.path.abspath(self.vision_folder)
        if self.vision_pretrained and os.path.isfile(self.vision_pretrained):
            folders["vision_pretrained"] = os.path.abspath(self.vision_pretrained)
        folders |= {
            name: os.path.abspath(path) for name in ("start", "reference_table") if (path := getattr(self, name))
        }
        folders["connector"] = self.connector.located()
        return TrainSettings.model_validate({**self.model_dump(), **folders})

    def check(self) -> None:
        """Refuse models that are not there, before anything is computed.

        Raises:
            RecipeError: with what was found, what was expected and what to do.
        """
        folder = self.language_folder
        names = {path.name for path in folder.iterdir()}
        if "config.json" not in names or not any(name.endswith((".safetensors", ".bin")) for name in names):
            raise RecipeError(
                f"`language_model` {str(folder)!r} holds {sorted(names)[:8]}, expected config.json, weights and a "
                "tokenizer; name the folder that a transformers model was saved to"
            )
        if self.vision_folder is None and self.vision_pretrained is None:
            raise RecipeError(
                f"image tower {self.vision_model!r} comes without `pretrained`: its weights would be random; "
                "name a tag or a local folder"
            )
        for option in self.parts.values():
            option.check()
        self.identity()
