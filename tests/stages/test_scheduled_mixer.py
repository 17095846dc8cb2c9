"""Mixers that rehearse a schedule, on real connectors over generated features."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import CuveeError
from stages.kinds import kinds
from stages.mixer import Mixer, MixtureEvidence, SourceEvidence
from stages.mixture.aioli import AioliMixer
from stages.mixture.doge import DoGEMixer
from stages.mixture.doremi import DoReMiMixer
from stages.mixture.limits import Bounds
from stages.mixture.tikmix_d import TiKMiXDMixer
from stages.schedule import Doubles, Rehearsal, Schedule
from stages.scheduled_mixer import ScheduledMixer, within
from stages.train.batches import Batches
from stages.train.loop import train_mixture
from stages.train.metrics.evaluation import evaluate_sources
from tests.stages.mixture.planted import sources, target, world
from tests.stages.train.generated import corpus, settings

NAMES = ("good", "harm", "noise")


@dataclass
class Planted:
    """A proxy over the planted sources; measured on pairs of the target that nothing is steered by."""

    trained: list[Any] = field(default_factory=list)

    @property
    def identity(self) -> Any:
        return "planted"

    def train(self, weights: Doubles | Schedule, seed: int, steps: int | None) -> Rehearsal:
        self.trained.append((weights if isinstance(weights, Schedule) else tuple(weights), seed))
        made, frozen = settings(budget={"steps": steps or 40}), world()
        found = train_mixture(made, frozen, sources(*NAMES), str(seed), weights, targets=target())
        held = {"target": corpus("target", range(0, 384, 5))}
        losses = evaluate_sources(found.bridge, frozen, held, generated=0)
        final = np.array([found.weights[name] for name in NAMES])
        return Rehearsal(final, {name: line["nll"] for name, line in losses.items()}, found.updates)


def evidence(samples: int = 300, rows: int = 384, proxy: Planted | None = None) -> MixtureEvidence:
    found = {name: SourceEvidence({}, np.ones(rows), [f"{name}-{i}" for i in range(rows)]) for name in NAMES}
    natural = {"good": 0.2, "harm": 0.6, "noise": 0.2}
    return MixtureEvidence(found, {}, samples, natural, 0, proxy=proxy or Planted())


def test_doge_finds_the_useful_source_and_beats_uniform_and_natural() -> None:
    mixture = DoGEMixer(every=3, mu=0.005, seeds=2, proxy_steps=90).mix(evidence())
    assert mixture.weights["good"] > 0.85 and mixture.weights["harm"] < 0.05
    low, high = mixture.intervals["harm"]
    assert 0 <= low <= mixture.weights["harm"] <= high < 0.2
    assert mixture.objective < mixture.references["uniform"] < mixture.references["natural"]
    losses = mixture.evidence["held_out_losses"]
    assert max(line["target"] for line in losses["capped"]) < min(line["target"] for line in losses["uniform"])
    assert mixture.objective == mixture.references["ideal"] and mixture.binding == ()
    assert [len(path["updates"]) for path in mixture.evidence["schedules"]] == [30, 30]


def test_the_same_evidence_gives_the_same_mixture() -> None:
    made = DoGEMixer(every=5, probe=8, seeds=2, proxy_steps=10)
    first, second = (asdict(replace(made.mix(evidence()), fit=None)) for _ in range(2))
    assert first == second


def test_a_cap_binds_and_says_so() -> None:
    mixture = DoGEMixer(every=2, mu=0.02, seeds=2, proxy_steps=20, max_repeats=1, max_share={"good": 0.5}).mix(
        evidence(samples=1000)
    )
    assert mixture.capped["good"] == pytest.approx(0.384) and sum(mixture.capped.values()) == pytest.approx(1)
    assert "max_repeats: good" in mixture.binding
    assert set(mixture.references) == {"ideal", "natural", "uniform"}
    with pytest.raises(CuveeError, match="min_share of 'good'"):
        DoGEMixer(min_share={"good": 0.9}, max_share=0.5).mix(evidence())


@pytest.mark.parametrize("mixer", [DoReMiMixer, DoGEMixer, AioliMixer, TiKMiXDMixer])
def test_every_mixer_rehearses_its_own_schedule(mixer: type[ScheduledMixer]) -> None:
    own = {"rounds": 1, "steps": 2} if mixer is AioliMixer else {}
    made = mixer(every=20, probe=8, seeds=2, proxy_steps=40, **own)
    schedule = made.schedule()
    assert (schedule.kind, schedule.every, schedule.probe) == (made.kind, 20, 8)
    proxy = Planted()
    mixture = made.mix(evidence(proxy=proxy))
    assert sum(mixture.weights.values()) == pytest.approx(1)
    assert [what for what in proxy.trained if isinstance(what[0], Schedule)] == [(schedule, 0), (schedule, 1)]
    assert len(proxy.trained) == 2 + 2 * 3, "the ideal is the capped one: it is trained once"
    assert mixture.fit is not None and kinds(Mixer)[made.kind] is mixer


def test_a_prior_is_refused() -> None:
    with pytest.raises(ValidationError, match="knows no prior"):
        DoGEMixer(prior_strength=0.1)


def test_pinned_weights_are_taken_and_only_for_sources_they_know() -> None:
    made = DoGEMixer(every=5, probe=8, seeds=2, proxy_steps=20)
    first = made.mix(evidence())
    proxy = Planted()
    pinned = made.mix(replace(evidence(proxy=proxy), fit=first.fit))
    assert pinned.weights == first.weights and pinned.fit is first.fit
    assert not any(isinstance(what, Schedule) for what, _ in proxy.trained)
    fewer = {name: evidence().sources[name] for name in ("good", "noise")}

    class Two(Planted):
        def train(self, weights: Doubles | Schedule, seed: int, steps: int | None) -> Rehearsal:
            assert not isinstance(weights, Schedule)
            return Rehearsal(weights, {"target": float(weights[1])}, ())

    gone = made.mix(replace(evidence(proxy=Two()), sources=fewer, fit=first.fit))
    assert gone.weights["good"] / gone.weights["noise"] == pytest.approx(first.weights["good"] / first.weights["noise"])
    assert gone.notes == ("harm had a weight in the pinned run and no rows now: the others share it in proportion",)
    more = {**evidence().sources, "new": evidence().sources["good"]}
    with pytest.raises(CuveeError, match="'new' has no weight in the pinned run"):
        made.mix(replace(evidence(), sources=more, fit=first.fit))


four = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any)


@hypothesis_settings(max_examples=100, deadline=None)
@given(four, st.lists(st.floats(0.05, 1), min_size=4, max_size=4))
def test_shares_within_bounds_are_scaled_then_cut(numbers: list[int], caps: list[float]) -> None:
    shares, upper = np.array(numbers) / sum(numbers), np.array(caps)
    if upper.sum() < 1:
        upper = np.minimum(1.0, upper / upper.sum() * 1.01)
    bounds = Bounds(np.zeros(4), upper, ("",) * 4, ("max_share",) * 4)
    found = within(shares, bounds)
    assert bounds.hold(found) and found.sum() == pytest.approx(1)
    free = (found < upper - 1e-9) & (shares > 0) & (found > 1e-6)
    if free.sum() > 1:
        ratios = found[free] / shares[free]
        assert ratios == pytest.approx(np.full(free.sum(), ratios[0]), rel=1e-6)


def test_batches_know_their_sources() -> None:
    batches = Batches(world(), sources(*NAMES))
    assert batches.names == NAMES and batches.natural == pytest.approx([1 / 3] * 3)
    assert batches.beside({"old": corpus("good", [1])}).names == ("good", "harm", "noise", "old")
    assert batches.fingerprint != Batches(world(), sources("good", "harm")).fingerprint
