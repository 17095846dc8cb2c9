"""Sources whose worth is known, for schedules that train on them."""

from stages.train.loop import Frozen, TrainResult, train_mixture
from stages.train.samples import Corpus
from tests.stages.train.generated import CLASSES, corpus, frozen, settings

NAMES = ("easy", "good", "harm", "noise", "target")
SAMPLES = 384
TURNED = {c: (c + 1) % CLASSES for c in range(CLASSES)}


def world() -> Frozen:
    """Images of every source."""
    return frozen(NAMES, SAMPLES)


def sources(*names: str) -> dict[str, Corpus]:
    """`good`: captions say the class; `harm`: another class; `noise`: any class; `easy`: one class alone."""
    made = {
        "easy": lambda: corpus("easy", range(0, SAMPLES, CLASSES)),
        "good": lambda: corpus("good", range(SAMPLES)),
        "harm": lambda: corpus("harm", range(SAMPLES), said=TURNED),
        "noise": lambda: corpus("noise", range(SAMPLES), wrong=1.0),
    }
    return {name: made[name]() for name in names}


def target() -> dict[str, Corpus]:
    """What the connector should be good at: captions that say the class."""
    return {"target": corpus("target", range(SAMPLES))}


def trained(schedule: object, *names: str, steps: int = 80, aimed: bool = True, seed: str = "0") -> TrainResult:
    """One connector under a schedule."""
    made = settings(budget={"steps": steps})
    return train_mixture(made, world(), sources(*names), seed, schedule, targets=target() if aimed else None)  # type: ignore[arg-type]
