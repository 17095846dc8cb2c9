"""A budget holds over any number of workers, whatever becomes of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.spending import NANO, Budget, Ledger, Spent, SpentError, ledger_folder, ledger_in, spent_in


def test_what_is_closed_counts_as_used_and_what_is_open_in_full(tmp_path: Path) -> None:
    lease = Ledger(Budget(requests=100), tmp_path).lease(40, 40, 7)
    assert spent_in(tmp_path) == Spent(40, 280, open=True)
    for _ in range(3):
        lease.draw()
        lease.settle(Spent(1, 5, 100, 2))
    lease.give_back()
    assert spent_in(tmp_path) == Spent(3, 15, 300, 6)


def test_a_lease_waits_for_what_is_under_way(tmp_path: Path) -> None:
    lease = Ledger(None, tmp_path).lease(2, 2, 7)
    lease.draw()
    lease.give_back()
    assert spent_in(tmp_path).open
    lease.settle(Spent(1, 5))
    assert spent_in(tmp_path) == Spent(1, 5)


def test_the_refusal_says_what_is_left_and_what_to_do(tmp_path: Path) -> None:
    ledger = Ledger(Budget(requests=5, cost=0.5), tmp_path)
    assert ledger.lease(9, 9, NANO // 100).left == 5
    with pytest.raises(SpentError, match=r"5 of 5 requests.*0.05 of 0.5.*raise `budget`"):
        ledger.lease(1, 1, NANO // 100)
    with pytest.raises(SpentError, match="the next request may take 1"):
        Ledger(Budget(cost=0.5), tmp_path / "other").lease(1, 1, NANO)


def test_raising_the_budget_goes_on(tmp_path: Path) -> None:
    Ledger(Budget(requests=5), tmp_path).lease(5, 5, 0)  # its worker died
    assert Ledger(Budget(requests=7), tmp_path).lease(5, 5, 0).left == 2


def test_the_last_part_is_shared_out() -> None:
    ledger = Ledger(Budget(requests=640))
    assert [ledger.lease(500, 8, 0).left for _ in range(3)] == [20, 19, 18]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30), st.booleans()), max_size=30),
    st.integers(1, 120),
    st.integers(1, 9),
)
def test_no_order_of_events_goes_over(events: list[tuple[int, int, bool]], requests: int, price: int) -> None:
    """Leases are taken, used in part, closed or left by a dead worker: the sum stays within both limits."""
    money = requests * price * 3 // 4 + 1
    budget = Budget(requests=requests, cost=money / NANO)
    first = Ledger(budget)
    workers = [first, Ledger(budget, first.folder)]
    sent = 0
    for number, (wanted, used, dies) in enumerate(events):
        try:
            lease = workers[number % 2].lease(wanted, 4, price)
        except SpentError:
            continue
        for _ in range(min(used, lease.left)):
            lease.draw()
            sent += 1
            if not dies:
                lease.settle(Spent(1, price))
        if not dies:
            lease.give_back()
        total = spent_in(first.folder)
        assert sent <= total.requests <= requests and total.cost_nano <= money


def test_workers_at_once_never_share_a_number(tmp_path: Path) -> None:
    ledgers = [Ledger(Budget(requests=150), tmp_path) for _ in range(4)]

    def work(ledger: Ledger) -> int:
        taken = 0
        while True:
            try:
                lease = ledger.lease(1, 1, 0)
            except SpentError:
                return taken
            taken += lease.left
            lease.draw()
            lease.settle(Spent(1))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, ledgers)) == 150
    files = sorted(tmp_path.glob("lease-*.json"))
    assert len(files) == 150 and all(not json.loads(file.read_text())["open"] for file in files)


def test_the_engine_says_where(tmp_path: Path) -> None:
    assert ledger_folder() is None
    with ledger_in(tmp_path):
        assert ledger_folder() == tmp_path
    assert ledger_folder() is None
