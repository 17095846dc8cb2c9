"""What training computes once because it never changes, and which options change it: they are refused together.

A constant that is none any more gives wrong numbers and no error, so that every pair stands in one table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.errors import RecipeError


@dataclass(frozen=True)
class Constant:
    """Something computed once."""

    what: str
    used: Callable[[Any], str | None]
    """The setting that relies on it, as it would be written; None where it is not relied on."""
    instead: str
    """How to do without it."""


@dataclass(frozen=True)
class Change:
    """A setting under which something is no constant."""

    asked: Callable[[Any], str | None]
    """The setting, as it would be written; None where it is not set."""
    breaks: frozenset[str] = frozenset()
    """Names in `CONSTANTS`."""


def _norms(which: str) -> Callable[[Any], str | None]:
    def asked(settings: Any) -> str | None:
        norms = settings.tune_norms
        kind = None if norms is None else getattr(norms, "of", "fisher_topk")
        return f"tune_norms: {which}" if kind == which else None

    return asked


def _replaces(settings: Any) -> str | None:
    connector = getattr(settings, "connector", None)
    if connector is None or connector.placement == "insert":
        return None
    return f"connector: {connector.kind}"


CONSTANTS = {
    "text_logits": Constant(
        "the logits of captions without their image",
        lambda settings: "token_weights: cal" if settings.token_weights else None,
        "leave out `token_weights`, or keep the language model as it is",
    ),
    "text_states": Constant(
        "the states of text below the injection layer, which are computed without a graph",
        lambda settings: f"inject_layer: {layer}" if (layer := getattr(settings, "inject_layer", 0)) else None,
        "set `inject_layer: 0`, or keep the language model as it is",
    ),
    "vision_features": Constant(
        "the features of images",
        # Online, the tower runs in every step, but without a graph and ahead of the step whose norms it would need.
        lambda settings: f"features: {kind}" if (kind := getattr(settings, "features", "cached")) else None,
        "use `tune_norms: llm`, or `TunedNorms(of='vision')` around a tower in a loop of your own",
    ),
    "same_on_all_ranks": Constant(
        "the prior of groups batch by batch, each rank by its own part of it",
        lambda settings: f"workers_per_run: {n}" if (n := getattr(settings, "workers_per_run", 1)) > 1 else None,
        "leave out `workers_per_run`, or take `form: concept_head`, whose source is known",
    ),
    "inserted_places": Constant(
        "the places of an image's tokens, which are each one value",
        _replaces,
        "take a connector whose tokens are inserted, `mlp` for instance",
    ),
}
CHANGES = {
    "norms of the language model": Change(_norms("llm"), frozenset({"text_logits", "text_states"})),
    "some norms of the language model": Change(_norms("fisher_topk"), frozenset({"text_logits", "text_states"})),
    "norms of the tower": Change(_norms("vision"), frozenset({"vision_features"})),
    "lora": Change(lambda settings: "lora" if settings.lora else None, frozenset({"text_logits", "text_states"})),
    "levels": Change(lambda settings: "levels" if settings.levels else None, frozenset({"inserted_places"})),
    "moca": Change(lambda settings: "moca" if settings.moca else None, frozenset({"inserted_places"})),
    "token weights": Change(lambda settings: "token_weights: cal" if settings.token_weights else None),
    "logit correction": Change(
        lambda settings: f"logit_correction: {settings.logit_correction.form}" if settings.logit_correction else None
    ),
    "two branches": Change(
        lambda settings: "logit_correction: two_branch" if getattr(settings.logit_correction, "q", None) else None,
        frozenset({"same_on_all_ranks"}),
    ),
    "average": Change(lambda settings: "average" if settings.average else None),
}


def refuse_broken(settings: Any) -> None:
    """Refuse settings of which one changes what another computes once.

    Raises:
        RecipeError: with both settings and what to do.
    """
    for change in CHANGES.values():
        for name in sorted(change.breaks):
            constant = CONSTANTS[name]
            changed, used = change.asked(settings), constant.used(settings)
            if changed is not None and used is not None:
                raise RecipeError(
                    f"`{changed}` changes {constant.what}, which `{used}` takes for constant; {constant.instead}"
                )
