"""The options as they stand under `train:`; all of them are off by default."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from schemas.columns import CLIP_SCORE
from stages.train.options.alignment_levels import AlignmentLevels
from stages.train.options.averaging import Average
from stages.train.options.cal import Cal
from stages.train.options.concepts import SOURCE
from stages.train.options.constants import refuse_broken
from stages.train.options.corrections import Correction, correction_of
from stages.train.options.fisher_norms import FisherNorms
from stages.train.options.lora import Lora
from stages.train.options.moca import Moca
from stages.train.options.option import Option
from stages.train.options.tuned_norms import TunedNorms


def _weights_of(given: Any) -> Any:
    return {} if given == "cal" else given


def _moca_of(given: Any) -> Any:
    return {True: {}, False: None}.get(given, given) if isinstance(given, bool) else given


def _norms_of(given: Any) -> Any:
    if given == "none":
        return None
    if given in ("llm", "vision"):
        return TunedNorms(of=given)
    if given == "fisher_topk":
        return FisherNorms.model_validate({})
    if isinstance(given, dict) and "fisher_topk" in given:
        return FisherNorms.model_validate(given["fisher_topk"])
    return given


class OptionSettings(BaseModel):
    """What may be asked for beside a connector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_weights: Annotated[Cal | None, BeforeValidator(_weights_of)] = None
    """`cal`: label tokens weigh by how much the image changes their logit."""
    logit_correction: Annotated[SerializeAsAny[Correction], BeforeValidator(correction_of)] | None = None
    """Training that does not lean on what only goes with a source: `form: caption`, `concept_head` or `two_branch`."""
    levels: AlignmentLevels | None = None
    """A learned vector for the bucket of a sample's CLIP score."""
    moca: Annotated[Moca | None, BeforeValidator(_moca_of)] = None
    """A scale and a shift of visual tokens behind every layer of the language model."""
    tune_norms: Annotated[SerializeAsAny[TunedNorms | FisherNorms] | None, BeforeValidator(_norms_of)] = None
    """`none`, `llm`, `vision`, `fisher_topk` or `{fisher_topk: {entries: ..., samples: ...}}`."""
    lora: Lora | None = None
    """Low-rank additions to the language model's linear layers."""
    average: Average | None = None
    """What a run ends with: the mean of its last states, or of all, forgetting."""

    @model_validator(mode="after")
    def _keeping_constants(self) -> "OptionSettings":
        refuse_broken(self)
        return self

    @property
    def parts(self) -> dict[str, Option]:
        """The options with a part in the bridge, by the setting's name, in the order in which they act."""
        found = {name: getattr(self, name) for name in ("levels", "tune_norms", "lora", "moca", "logit_correction")}
        return {name: option for name, option in found.items() if option is not None and option.has_part}

    @property
    def recorded(self) -> dict[str, Any]:
        """What a connector's card says of the options that it was trained with."""
        return {name: option.record() for name, option in self.parts.items()}

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are on."""
        dumped = self.model_dump(mode="json", include=set(OPTION_SETTINGS)) | self.recorded
        return {name: value for name, value in dumped.items() if value is not None}

    @property
    def columns(self) -> tuple[str, ...]:
        """Exported values of a sample that training asks for."""
        named = [CLIP_SCORE.name] if self.levels else []
        named += [SOURCE] if self.logit_correction else []
        concepts = getattr(self.logit_correction, "column", None)
        return tuple(dict.fromkeys([*named, *([concepts] if concepts else [])]))


OPTION_SETTINGS = tuple(OptionSettings.model_fields)
