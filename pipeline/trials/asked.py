"""The recipe's `trials` section as methods in hand; what cannot work is refused before any work."""

from dataclasses import dataclass

from pipeline.places import rooted
from pipeline.proof import settings
from pipeline.resolve import Resolved, nearest, validated
from pipeline.trials.connector import ConnectorPilot
from pipeline.trials.pilot import Pilot
from pipeline.trials.plan import whole_budgets
from pipeline.trials.probe import COLUMNS, ProbePilot
from schemas.errors import RecipeError
from schemas.recipe import Trials
from stages.mixture.designs import DESIGNS, Design
from stages.train.contrastive_probe import ContrastiveProbe

CONNECTOR, PROBE = "connector", "contrastive_probe"


@dataclass(frozen=True)
class Asked:
    """What is to be run."""

    trials: Trials
    design: Design
    pilot: Pilot


def asked(resolved: Resolved) -> Asked:
    """Check the section.

    Raises:
        RecipeError: no section, one source, an unknown design or pilot, a setting that does not fit, or a pilot whose
            models or columns the recipe lacks.
    """
    trials = resolved.recipe.trials
    if trials is None:
        raise RecipeError(
            "the recipe has no `trials` section; say how many mixtures and samples, e.g. "
            "`trials: {design: d_optimal, count: 24, budgets: [1000, 4000]}`"
        )
    names = [source.source for source in resolved.recipe.pool]
    if len(names) < 2:
        raise RecipeError(f"trials: there is nothing to mix, the pool has one source, {names[0]!r}; name another")
    made = Asked(trials, _design(trials, len(names)), _pilot(resolved, trials))
    whole_budgets(trials, made.pilot)
    return made


def _design(trials: Trials, sources: int) -> Design:
    kind = trials.design.kind
    if kind not in DESIGNS:
        raise RecipeError(f"trials: unknown design {kind!r}{nearest(kind, DESIGNS)}")
    found: Design = validated(DESIGNS[kind], {"kind": kind, **trials.design.settings()}, "trials.design")
    if trials.count < (least := found.least(sources)):
        raise RecipeError(
            f"trials: design {kind!r} of {sources} sources needs {least} mixtures, found `count: {trials.count}`; "
            "raise it, or choose another design" + (" or `model: linear`" if kind == "d_optimal" else "")
        )
    return found


def _pilot(resolved: Resolved, trials: Trials) -> Pilot:
    step = trials.pilot
    if step.kind == CONNECTOR:
        return _connector(resolved, list(step.settings()))
    if step.kind != PROBE:
        raise RecipeError(f"trials: unknown pilot {step.kind!r}{nearest(step.kind, (CONNECTOR, PROBE))}")
    written = {field.name for stage in resolved.stages for field in stage.writes}
    if lacking := [column for column in COLUMNS if column not in written]:
        raise RecipeError(
            f"trials: pilot {PROBE!r} reads {lacking[0]!r}, which no score step writes; add `kind: clip` to `score`"
        )
    given = rooted(ContrastiveProbe, step.settings(), resolved.folder)
    return ProbePilot(validated(ContrastiveProbe, {"kind": PROBE, **given}, "trials.pilot"))


def _connector(resolved: Resolved, own: list[str]) -> Pilot:
    if own:
        raise RecipeError(f"trials: pilot {CONNECTOR!r} has no setting {own[0]!r} of its own; set it under `train`")
    if resolved.recipe.train is None:
        raise RecipeError(
            f"trials: pilot {CONNECTOR!r} is trained by the settings of `train`, which the recipe lacks; add it, or "
            f"say `pilot: {PROBE}`"
        )
    return ConnectorPilot(settings(resolved))
