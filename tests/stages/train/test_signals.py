from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ContractError, CuveeError
from stages.kinds import kinds
from stages.mixture.aioli import Aioli
from stages.mixture.doge import DoGE
from stages.mixture.doremi import DoReMi
from stages.mixture.ordered_stream import OrderedStream
from stages.mixture.tikmix_d import TiKMiXD
from stages.mixture.two_phase import TwoPhase
from stages.schedule import Course, Schedule, Signals, State, Wants
from stages.train.batches import Batches
from stages.train.bridge import Bridge
from stages.train.loop import Frozen, train_mixture
from stages.train.run import connector_card
from stages.train.samples import Corpus
from stages.train.signals import Probe, adam_scale, gradient, inner_products
from tests.stages.train.generated import CLASSES, corpus, frozen, settings

TURNED = {c: (c + 1) % CLASSES for c in range(CLASSES)}
ALL = (
    DoReMi(every=3, probe=8),
    DoReMi(every=4, probe=8, reference="natural"),
    DoGE(every=3, probe=8),
    Aioli(every=10, probe=8, rounds=1, steps=1),
    TiKMiXD(every=5, probe=8),
    TiKMiXD(every=5, probe=8, preconditioner="diagonal"),
    TwoPhase(),
    OrderedStream(order=("more", "bad", "good")),
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def world() -> Frozen:
    return frozen(["bad", "good", "held", "more"], 60)


@pytest.fixture(scope="module")
def sources() -> dict[str, Corpus]:
    bad = corpus("bad", range(30), said=TURNED)
    return {"good": corpus("good", range(60)), "bad": bad, "more": corpus("more", range(17))}


@pytest.fixture(scope="module")
def targets() -> dict[str, Corpus]:
    return {"target": corpus("held", range(40))}


def probe(world: Frozen, sources: dict[str, Corpus], schedule: Schedule, reference: object = None) -> Probe:
    return Probe(schedule, Batches(world, sources), None, "7/0", reference)  # type: ignore[arg-type]


def weights(module: object) -> list[np.ndarray]:
    return [value.numpy() for value in module.state_dict().values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("schedule", ALL, ids=lambda schedule: schedule.kind)
@pytest.mark.parametrize("killed_after", [5, 14])
def test_a_killed_schedule_continues_bit_for_bit(
    world: Frozen, sources: dict[str, Corpus], targets: dict[str, Corpus], tmp_path: Path, schedule: Schedule,
    killed_after: int,
) -> None:  # fmt: skip
    aim = targets if killed_after == 5 else None
    whole = train_mixture(settings(), world, sources, "7/0", schedule, targets=aim)
    checkpoint = tmp_path / "checkpoint.safetensors"

    def kill(step: int, loss: float) -> None:
        if step == killed_after:
            raise Killed

    with pytest.raises(Killed):
        train_mixture(settings(), world, sources, "7/0", schedule, targets=aim, checkpoint=checkpoint, on_step=kill)
    seen: list[int] = []
    resumed = train_mixture(
        settings(), world, sources, "7/0", schedule, targets=aim, checkpoint=checkpoint,
        on_step=lambda step, _: seen.append(step),
    )  # fmt: skip
    assert seen[0] == killed_after // 4 * 4 + 1
    assert all(np.array_equal(a, b) for a, b in zip(weights(resumed.bridge), weights(whole.bridge), strict=True))
    assert resumed.updates == whole.updates and len(whole.updates) >= 1
    assert (resumed.weights, resumed.drawn) == (whole.weights, whole.drawn)
    assert list(tmp_path.iterdir()) == [], "nothing of a finished run is left"


def test_every_schedule_is_tried_here() -> None:
    ours = {kind for kind, made in kinds(Schedule).items() if made.__module__.startswith("stages.")}
    assert ours == {schedule.kind for schedule in ALL}


def test_a_reference_is_trained_once(world: Frozen, sources: dict[str, Corpus], tmp_path: Path) -> None:
    """A kill after the reference was finished does not train it again; one with another schedule is refused."""
    checkpoint = tmp_path / "checkpoint.safetensors"

    def kill(step: int, loss: float) -> None:
        raise Killed

    schedule = DoReMi(every=3, probe=8)
    with pytest.raises(Killed):
        train_mixture(settings(), world, sources, "7/0", schedule, checkpoint=checkpoint, on_step=kill)
    reference = tmp_path / "reference-checkpoint.safetensors"
    before = reference.stat().st_mtime_ns
    with pytest.raises(Killed):
        train_mixture(settings(), world, sources, "7/0", schedule, checkpoint=checkpoint, on_step=kill)
    assert reference.stat().st_mtime_ns == before
    with pytest.raises(CuveeError, match="schedule ="):
        other = DoReMi(every=3, probe=8, reference="natural")
        train_mixture(settings(), world, sources, "7/0", other, checkpoint=checkpoint, on_step=kill)


def test_a_schedule_aims_at_the_target_or_at_the_sources(
    world: Frozen, sources: dict[str, Corpus], targets: dict[str, Corpus]
) -> None:
    def columns(aim: str, given: dict[str, Corpus] | None) -> int:
        schedule = DoGE(every=20, probe=8, aim=aim)  # type: ignore[arg-type]
        found = train_mixture(settings(), world, sources, "7/0", schedule, targets=given)
        return len(found.updates[0]["products"][0])

    assert [columns("target", targets), columns("sources", targets), columns("target", None)] == [1, 3, 3]


def test_a_schedule_that_wants_nothing_trains_as_fixed_weights_do(world: Frozen, sources: dict[str, Corpus]) -> None:
    natural = np.array([30, 60, 17]) / 107
    still = TwoPhase(large=("bad", "good", "more"), mixture="natural")
    fixed = train_mixture(settings(), world, sources, "7/0", natural)
    steered = train_mixture(settings(), world, sources, "7/0", still)
    assert steered.drawn == fixed.drawn and steered.curve == fixed.curve
    assert [update["step"] for update in steered.updates] == [10]


def test_measuring_changes_neither_connector_nor_order(world: Frozen, sources: dict[str, Corpus]) -> None:
    class Curious(TwoPhase):
        kind: str = "curious"  # type: ignore[assignment]

        def wants(self) -> Wants:
            return Wants(losses=True, excess="uniform", gradients="diagonal")

    plain = TwoPhase(large=("good", "more"), mixture="natural")
    curious = Curious(large=("good", "more"), mixture="natural", every=2)
    found = [train_mixture(settings(), world, sources, "7/0", schedule) for schedule in (plain, curious)]
    assert found[0].curve == found[1].curve
    assert set(found[1].updates[0]) == {"step", "rate", "losses", "excess", "products", "norms", "weights"}


def test_inner_products_against_whole_gradients(world: Frozen, sources: dict[str, Corpus]) -> None:
    import torch

    card = connector_card(settings(), world, "7/0")
    module, measured = Bridge(card.build()), probe(world, sources, DoGE(probe=20))
    optimizer = torch.optim.AdamW(module.parameters())
    signals = measured.measure(module, optimizer, 0, 0.01, 2)
    flat = []
    for drawn in measured._drawn(measured.sources, "probe", 2):
        module.zero_grad()
        torch.autograd.backward(measured.sources.losses(module, drawn).mean())
        whole = np.concatenate([parameter.grad.numpy().ravel() for parameter in module.parameters()]).astype(np.float64)
        flat.append(whole * min(1.0, 1.0 / np.linalg.norm(whole)))
    assert signals.products == pytest.approx(np.array(flat) @ np.array(flat).T, rel=1e-5)
    assert signals.norms == pytest.approx(np.linalg.norm(flat, axis=1), rel=1e-5)
    assert (signals.norms <= 1 + 1e-6).all()


def test_gradients_in_pieces_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    drawn = torch.Generator().manual_seed(0)
    left, right = torch.randn(3, 1000, generator=drawn), torch.randn(2, 1000, generator=drawn)
    scale = torch.rand(1000, generator=drawn)
    monkeypatch.setattr("stages.train.signals.COLUMNS", 64)
    wanted = (left.double().numpy() * scale.double().numpy()) @ right.double().numpy().T
    assert inner_products(list(left), list(right), scale) == pytest.approx(wanted, rel=1e-12)


def test_the_diagonal_is_what_adam_divides_by(world: Frozen, sources: dict[str, Corpus]) -> None:
    """The next step of Adam without momentum, on some gradient, is the rate times the gradient in this scale."""
    import torch

    module = Bridge(connector_card(settings(), world, "7/0").build())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, betas=(0.0, 0.9), weight_decay=0.0)
    batches, drawn = Batches(world, sources), [("good", i) for i in range(8)]
    for _ in range(3):
        before = torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])
        optimizer.zero_grad()
        flat = gradient(module, batches, drawn)
        torch.autograd.backward(batches.losses(module, drawn).mean())
        optimizer.step()
        after = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
        step = 0.1 * flat * adam_scale(optimizer, module, [])
        assert (before - after).numpy() == pytest.approx(step.numpy(), rel=1e-3, abs=1e-7)


def test_excess_is_clipped_token_by_token(world: Frozen, sources: dict[str, Corpus]) -> None:
    import torch

    mine, other = (Bridge(connector_card(settings(), world, seed).build()) for seed in ("7/0", "7/1"))
    measured = probe(world, sources, DoReMi(probe=15), other)
    found = measured.measure(mine, torch.optim.AdamW(mine.parameters()), 0, 0.01, 0).excess
    wanted = []
    for drawn in measured._drawn(measured.sources, "probe", 0):
        tokens = []
        for sample in drawn:
            with torch.no_grad():
                pair = [measured.sources.losses(module, [sample]).values.double().numpy() for module in (mine, other)]
            tokens += np.maximum(pair[0] - pair[1], 0).ravel().tolist()
        wanted.append(np.mean(tokens))
    assert found == pytest.approx(wanted, rel=1e-4) and (found > 0).all()


def test_probes_are_fresh_and_the_fixed_one_is_not(world: Frozen, sources: dict[str, Corpus]) -> None:
    measured = probe(world, sources, DoGE(probe=5))
    seen = [i for update in range(6) for drawn in measured._drawn(measured.sources, "probe", update) for _, i in drawn]
    assert len(seen) == 6 * 15
    bad = [i for update in range(6) for _, i in measured._drawn(measured.sources, "probe", update)[0]]
    assert sorted(bad) == list(range(30)), "an epoch of probes sees every sample once"
    again = probe(world, sources, DoGE(probe=5))._drawn(measured.sources, "probe", 4)
    assert again == measured._drawn(measured.sources, "probe", 4), "whatever came before"
    assert measured._drawn(measured.sources, "row probe", 0) != measured._drawn(measured.sources, "probe", 0)


def test_answers_that_break_the_contract_are_refused(world: Frozen, sources: dict[str, Corpus]) -> None:
    class Broken(Schedule):
        kind: str = "broken"

        def wants(self) -> Wants:
            return Wants()

        def answer(self, state: State, signals: Signals, course: Course) -> State:
            if self.every == 1:
                return {**state, "weights": [0.5, 0.6, 0.1], "next": 100}
            return {**state, "next": signals.step}

    for every, said in ((1, "sum to 1"), (2, "of the past")):
        with pytest.raises(ContractError, match=said):
            train_mixture(settings(), world, sources, "7/0", Broken(every=every))
