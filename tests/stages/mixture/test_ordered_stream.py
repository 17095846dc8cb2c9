import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.mixture.ordered_stream import OrderedStream
from stages.schedule import Course, Path, Signals
from tests.stages.mixture.planted import trained

COURSE = Course(("a", "b", "c"), (), np.array([0.5, 0.3, 0.2]), 100, "0")


def test_sources_come_in_order_and_those_before_are_replayed() -> None:
    schedule = OrderedStream(order=("c", "a", "b"), replay=0.2)
    path, begun = Path(schedule.start(COURSE)), []
    shares = [path.weights]
    while path.state["next"] <= 100:
        begun.append(path.state["next"])
        schedule.update(path, Signals(begun[-1], 0.1), COURSE)
        shares.append(path.weights)
    assert begun == [33, 66]
    assert shares[0].tolist() == [0, 0, 1]
    assert shares[1] == pytest.approx([0.8, 0, 0.2])
    assert shares[2] == pytest.approx([0.2 * 5 / 7, 0.8, 0.2 * 2 / 7])


def test_the_batches_follow() -> None:
    found = trained(OrderedStream(order=("good", "harm"), replay=0.25), "good", "harm", steps=20)
    assert found.drawn == {"good": 10 * 12 + 30, "harm": 90}
    plain = trained(OrderedStream(order=("good", "harm"), replay=0.0), "good", "harm", steps=20)
    assert plain.drawn == {"good": 120, "harm": 120}


def test_what_is_no_order_is_refused() -> None:
    for order in (("a", "b"), ("a", "b", "b", "c"), ("a", "b", "d")):
        with pytest.raises(CuveeError, match="each of a, b, c once"):
            OrderedStream(order=order).start(COURSE)
    few = Course(("a", "b", "c"), (), np.full(3, 1 / 3), 2, "0")
    with pytest.raises(CuveeError, match="train longer"):
        OrderedStream(order=("a", "b", "c")).start(few)
