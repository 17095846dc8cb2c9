"""Pieces of work on Ray: results as they come, one opening per worker, failures in their own words."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipeline.cluster import Cluster
from pipeline.tasks import Task, run_tasks
from schemas.errors import CuveeError, RecipeError


@dataclass(frozen=True)
class Counting:
    """Counts a name's letters, one result each; says which process opened it and how often."""

    fault: str = ""

    def open(self) -> Task:
        if self.fault == "open":
            raise RecipeError("the worker's machine has no such file")
        opened: list[int] = []

        def task(name: str) -> Iterator[tuple[int, int, int]]:
            opened.append(1)
            if name == self.fault == "bug":
                raise ZeroDivisionError("of the code, not of the input")
            if name == self.fault:
                raise CuveeError(f"{name} is no name")
            yield from ((letter, os.getpid(), len(opened)) for letter in range(len(name)))

        return task


def test_every_piece_is_done_once_and_a_worker_opens_a_job_once(ray_cluster: object) -> None:
    names = [f"piece{number}" for number in range(30)]
    found: dict[str, list[tuple[int, int, int]]] = {}
    for name, result in run_tasks(Cluster(), Counting(), names):
        found.setdefault(name, []).append(result)
    assert sorted(found) == sorted(names)
    assert all([letter for letter, _, _ in results] == list(range(len(name))) for name, results in found.items())
    by_process: dict[int, list[int]] = {}
    for results in found.values():
        by_process.setdefault(results[0][1], []).append(results[0][2])
    assert all(sorted(calls) == list(range(1, len(calls) + 1)) for calls in by_process.values()), "opened twice"


def test_a_failure_keeps_its_words(ray_cluster: object) -> None:
    with pytest.raises(CuveeError, match=r"^bad is no name$"):
        list(run_tasks(Cluster(), Counting("bad"), ["good", "bad"]))


def test_a_bug_names_its_piece_and_its_place(ray_cluster: object) -> None:
    with pytest.raises(CuveeError, match=r"(?s)^bug: .*in task.*ZeroDivisionError: of the code"):
        list(run_tasks(Cluster(), Counting("bug"), ["good", "bug"]))


def test_what_fails_to_open_stops_the_run_instead_of_giving_up_its_pieces(ray_cluster: object) -> None:
    with pytest.raises(CuveeError, match=r"^the worker's machine has no such file$"):
        list(run_tasks(Cluster(), Counting("open"), ["good", "better"], lambda name, why: pytest.fail(why)))


def test_nothing_to_do_starts_nothing() -> None:
    cluster = Cluster("no-such-host:1")
    assert list(run_tasks(cluster, Counting(), [])) == []
    assert not cluster.started
