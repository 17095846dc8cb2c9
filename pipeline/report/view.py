"""What a report shows: plain frozen records that the engine fills from a run folder.

Nothing here is computed from images or tables; every field is a number, a string, or bytes of one image. Sections
whose field is empty or None are left out of the page. Strings may be hostile: the page neutralises every one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.report.trials_view import TrialsView

Values = npt.NDArray[Any]
DISTANCE = "distance to the target"
"""An objective that is 0 at best, so that its bars begin there."""


@dataclass(frozen=True)
class Step:
    """One step of the funnel; `n_in - n_kept` equals the sum of `dropped`, else the page says how many are missing."""

    kind: str
    n_in: int
    n_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows per reason code."""
    seconds: float | None = None
    name: str = ""
    """How people call it; default: the kind."""
    status: Literal["dropped", "quarantined"] = "dropped"
    """What happens to the rows that do not pass."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values: thresholds, counts, distances."""


@dataclass(frozen=True)
class StatusCount:
    """Rows of one source with one verdict; over all of them each pool sample counts once."""

    source: str
    status: str
    """kept, dropped or quarantined."""
    reason: str | None
    """The reason code; None for kept rows."""
    count: int
    decided_by: str = ""
    """As in the ledger; empty for kept rows."""


@dataclass(frozen=True)
class Threshold:
    """Where a rule cut a score."""

    value: float
    keeps: Literal["at_least", "at_most"] = "at_least"
    source: str | None = None
    """The source it holds for; None: all of them."""


@dataclass(frozen=True)
class ScoreView:
    """One numeric column of the score table."""

    column: str
    values: Mapping[str, Values]
    """Source -> (n,) numbers; NaN stands for null and is counted, not drawn."""
    meaning: str = ""
    unit: str = ""
    thresholds: tuple[Threshold, ...] = ()
    muted: tuple[str, ...] = ()
    """Where the rows are no sources but what became of samples: those that did not pass."""


@dataclass(frozen=True)
class RankingView:
    """A value by which one step of the funnel told rows apart."""

    step: str
    score: ScoreView
    """Per fate, `kept` or another, its values."""


@dataclass(frozen=True)
class NamesView:
    """One column of names: kinds, labels, flags, true and false."""

    column: str
    counts: Mapping[str, Mapping[str | None, int]]
    """Source -> name -> rows that have it; None: without a value. A row of a list counts for each of its names."""
    totals: Mapping[str, int]
    """Source -> rows."""
    meaning: str = ""


@dataclass(frozen=True)
class Card:
    """One sample to look at."""

    key: str
    uid: str
    source: str
    image: bytes | None = None
    """The image file's bytes as they stand in the shard, broken ones included."""
    caption: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    """One short line, e.g. `Hamming distance 2`."""


@dataclass(frozen=True)
class GalleryGroup:
    """A contact sheet: samples that met the same verdict."""

    title: str
    """`kept` or a reason code."""
    total: int
    """How many samples met it; `cards` holds some of them."""
    cards: tuple[Card, ...]
    explanation: str = ""
    status: str = "dropped"


@dataclass(frozen=True)
class DuplicateGroup:
    """Samples that are the same picture: who stays and who leaves."""

    decided_by: str
    """The step, as in the ledger."""
    survivor: Card
    others: tuple[Card, ...]
    total: int | None = None
    """Size of the group, survivor included; default: what is shown."""
    mark: str = "stays"
    """What is said of the first: `stays`, why it left, too, or where it is what the others are compared with."""


@dataclass(frozen=True)
class SourceShare:
    """Shares of one source, each in [0, 1]."""

    source: str
    pool: float
    surviving: float
    ideal: float
    capped: float
    realised: float
    interval: tuple[float, float] | None = None
    """95 % interval of the ideal share."""


@dataclass(frozen=True)
class SourceWorth:
    """What one source does to the objective; negative lowers it. None where the mixer does not say."""

    source: str
    marginal: float | None = None
    """Change per unit of share that the source takes from the exported mixture, at its margin."""
    alone: float | None = None
    """The objective of this source alone."""
    lost: float | None = None
    """By how much the best mixture is worse without it, >= 0."""
    cosine: float | None = None
    """Of its mean embedding with the target's."""
    joined: Mapping[str, float] = field(default_factory=dict)
    """Other source -> change of the objective when that one joins this source alone."""


@dataclass(frozen=True)
class MixtureView:
    """The mixer's answer with its evidence."""

    shares: tuple[SourceShare, ...]
    objective: float
    """At the capped mixture; lower is better."""
    references: Mapping[str, float]
    """The objective at named mixtures: `uniform`, `natural`, `ideal`."""
    kind: str = ""
    objective_name: str = DISTANCE
    binding: tuple[str, ...] = ()
    worth: tuple[SourceWorth, ...] = ()
    """The nearest source first; empty where the mixer knows no marginal values."""


@dataclass(frozen=True)
class Metric:
    """What an arm is measured by."""

    name: str
    label: str
    better: Literal["lower", "higher", ""] = "lower"
    """Empty: that depends on the purpose."""
    meaning: str = ""


@dataclass(frozen=True)
class Curve:
    """Training loss of one seed."""

    seed: int
    steps: Values
    losses: Values


@dataclass(frozen=True)
class CostView:
    """What a selection cost before anything was trained on it."""

    alone: float
    """Seconds, from nothing."""
    shared: float
    """Seconds, with what other selections use too split among them."""
    money: float = 0.0
    whole: bool = True
    """Whether all of it was measured; else it is at least so much."""


@dataclass(frozen=True)
class ArmView:
    """One arm of the training comparison: same start, steps, batch and evaluation, other data."""

    name: str
    curves: tuple[Curve, ...]
    metrics: Mapping[str, tuple[float, ...]]
    """Metric name -> final value per seed."""
    meaning: str = ""
    cost: CostView | None = None


@dataclass(frozen=True)
class Difference:
    """Paired per-seed difference of two arms in one metric, with its 95 % t-interval."""

    metric: str
    left: str
    right: str
    """The difference is left - right."""
    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class CaptionView:
    """A held-out picture, what stands beside it, and what was generated."""

    image: bytes | None
    true: str
    written: Mapping[str, tuple[str, float]]
    """Arm -> its caption, and the token edit distance of it from the true one."""


@dataclass(frozen=True)
class TrainingView:
    """The proof of gain; the first difference is the headline."""

    arms: tuple[ArmView, ...]
    metrics: tuple[Metric, ...]
    differences: tuple[Difference, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Steps, batch, seeds, model identities."""
    captions: tuple[CaptionView, ...] = ()
    read: str = ""
    """A sentence on what the arms are, where they are not those of a proof of gain."""


@dataclass(frozen=True)
class SelectorView:
    """One selector's choice among the samples that all of them had."""

    name: str
    kept: int
    values: Mapping[str, float]
    """Measure -> its number."""
    sources: Mapping[str, float]
    """Source -> share of the choice, summing to 1."""
    against_random: Mapping[str, str] = field(default_factory=dict)
    """Measure -> below, within or above what random draws have."""
    trained: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Metric of the training -> final value per seed."""
    seconds: float | None = None
    reused: bool = False
    """The choice was there before, and took so many seconds then."""
    detail: str = ""
    """Its settings in a few words."""


@dataclass(frozen=True)
class ComparisonView:
    """Selectors side by side."""

    budget: str
    survivors: int
    everything: SelectorView
    """All samples there were, as if they were a choice."""
    selectors: tuple[SelectorView, ...]
    measures: tuple[Metric, ...]
    intervals: Mapping[str, tuple[float, float]]
    """Measure -> where 95 % of random draws lie."""
    overlap: Mapping[str, Mapping[str, float]]
    """Selector -> the other -> Jaccard index in [0, 1]."""
    chance_overlap: float
    measured_on: str = ""
    """A sentence: which samples of the target."""
    trained: tuple[Metric, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class StageTiming:
    """What one stage cost in this run."""

    kind: str
    computed: int
    """Shards computed."""
    reused: int
    """Shards whose sidecar was there."""
    samples: int
    seconds: float
    samples_per_s: float | None = None
    bytes: int | None = None
    """Bytes of its sidecars."""


@dataclass(frozen=True)
class Check:
    """A claim beside its bar; `passed` is None where nothing is claimed."""

    name: str
    value: str
    bar: str = ""
    passed: bool | None = None


@dataclass(frozen=True)
class ReportView:
    """Everything one report shows."""

    title: str
    run: str
    counted: int
    """Samples of the pool counted from the containers, not from the ledger."""
    status_counts: tuple[StatusCount, ...]
    funnel: tuple[Step, ...] = ()
    scores: tuple[ScoreView, ...] = ()
    names: tuple[NamesView, ...] = ()
    rankings: tuple[RankingView, ...] = ()
    gallery: tuple[GalleryGroup, ...] = ()
    duplicates: tuple[DuplicateGroup, ...] = ()
    mixture: MixtureView | None = None
    trials: TrialsView | None = None
    exported: int | None = None
    """Samples written, repeats included."""
    training: TrainingView | None = None
    comparison: ComparisonView | None = None
    stages: tuple[StageTiming, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprints, seed, versions: shown as name and value."""
    recipe_yaml: str = ""


@dataclass(frozen=True)
class ContestView:
    """A page about finished selections and what a connector learned from each."""

    title: str
    run: str
    training: TrainingView
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe_yaml: str = ""
    checks: tuple[Check, ...] = ()
    stages: tuple[StageTiming, ...] = ()


def finite(values: Values) -> npt.NDArray[np.float64]:
    """The (m,) finite ones of (n,) numbers, as float64."""
    numbers = np.asarray(values, dtype=np.float64).ravel()
    return numbers[np.isfinite(numbers)]
