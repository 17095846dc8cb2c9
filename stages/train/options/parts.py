"""The trained parts of a run's options: as they start, and as they were saved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import RecipeError
from stages.noise import uniform_noise
from stages.train.options.alignment_levels import AlignmentLevels
from stages.train.options.concepts import Concepts
from stages.train.options.corrections import ConceptHead
from stages.train.options.fisher_norms import FisherNorms, fisher_information
from stages.train.options.lora import Lora
from stages.train.options.moca import Moca
from stages.train.options.option import Option, part
from stages.train.options.settings import OptionSettings
from stages.train.options.tuned_norms import TunedNorms

if TYPE_CHECKING:
    import torch

    from stages.train.batches import Batches
    from stages.train.bridge import Bridge
    from stages.train.connector import ConnectorCard

PREFIX = "parts."


def started_bridge(settings: OptionSettings, card: "ConnectorCard", sources: "Batches") -> "Bridge":
    """A connector before its first step, with the parts of a run's options.

    Args:
        settings: which options.
        card: of the connector.
        sources: all training samples, and the frozen models.

    Raises:
        RecipeError: an option that does not fit the samples or the models.
    """
    parts = {
        option.name: _started(option, sources, card.inject_layer, card.init_seed) for option in settings.parts.values()
    }
    bridge = card.bridge(parts)
    if isinstance(settings.tune_norms, FisherNorms):
        _choose(settings.tune_norms, bridge.to(sources.frozen.language.device), sources)
    return bridge


def _choose(option: FisherNorms, bridge: "Bridge", sources: "Batches") -> None:
    """Have the samples choose which entries are trained; the part itself does not act meanwhile."""
    model, part = sources.frozen.language.model, bridge.parts.pop(option.name)
    places = [(name, i) for name in sources.names for i in range(len(sources.corpora[name]))]
    noise = uniform_noise([f"{name}/{sources.corpora[name].keys[i]}" for name, i in places], 0, "fisher information")
    asked = [places[place] for place in np.argsort(noise, kind="stable")[: option.samples]]
    fisher = fisher_information(model, lambda sample: -sources.losses(bridge, [sample]).values.sum(), asked)
    part.load_state_dict(option.start(model, fisher).state_dict())
    bridge.parts[option.name] = part


def _started(option: Option, sources: "Batches", inject_layer: int, seed: int) -> "torch.nn.Module":
    language, visual = sources.frozen.language, sources.frozen.visual
    if isinstance(option, AlignmentLevels):
        return option.start(language.width, seed, option.cuts(*option.scores(sources.corpora)))
    if isinstance(option, TunedNorms) and option.of == "vision":
        raise RecipeError(
            "`tune_norms: vision` trains the image tower, whose features this run takes as they are; use "
            "`tune_norms: llm`, or `TunedNorms(of='vision')` around a tower of your own loop"
        )
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
