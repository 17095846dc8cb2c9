"""The trained parts of a run's options: as they start, and as they were saved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stages.train.options.alignment_levels import AlignmentLevels
from stages.train.options.concepts import Concepts
from stages.train.options.corrections import ConceptHead
from stages.train.options.fisher_norms import FisherNorms
from stages.train.options.lora import Lora
from stages.train.options.moca import Moca
from stages.train.options.option import Option, part
from stages.train.options.settings import OptionSettings
from stages.train.options.tuned_norms import TunedNorms

if TYPE_CHECKING:
    import torch

    from stages.train.batches import Batches

PREFIX = "parts."


def started_parts(
    settings: OptionSettings, sources: "Batches", inject_layer: int, seed: int
) -> "dict[str, torch.nn.Module]":
    """The parts of a run's options before its first step, by the option's name.

    Args:
        settings: which options.
        sources: the training samples, and the frozen models.
        inject_layer: where visual tokens go in.
        seed: of what is drawn.

    Raises:
        RecipeError: an option that does not fit the samples or the models.
    """
    return {option.name: _started(option, sources, inject_layer, seed) for option in settings.parts.values()}


def _started(option: Option, sources: "Batches", inject_layer: int, seed: int) -> "torch.nn.Module":
    language, visual = sources.frozen.language, sources.frozen.visual
    if isinstance(option, AlignmentLevels):
        return option.start(language.width, seed, option.cuts(*option.scores(sources.corpora)))
    if isinstance(option, TunedNorms | FisherNorms):
        return option.start(language.model)
    if isinstance(option, Lora):
        return option.start(language.model, seed)
    if isinstance(option, Moca):
        return option.start(language.model, inject_layer)
    assert isinstance(option, ConceptHead), option
    return option.start(language.width, visual.width, Concepts.of(option, sources).counts)


def restored_parts(recorded: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.nn.Module]":
    """The parts of a saved bridge, by the option's name.

    Args:
        recorded: what the card says of options.
        tensors: the bridge's saved state.
    """
    found = {}
    for option in OptionSettings.model_validate(dict(recorded)).parts.values():
        prefix = f"{PREFIX}{option.name}."
        mine = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        found[option.name] = part(option, mine)
    return found
