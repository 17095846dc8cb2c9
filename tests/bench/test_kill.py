"""Kills at random times, of drivers, workers and raylets, change no byte and cost a slice per worker at most."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.kill import kill_loop

EXTRA = """select:
  - {kind: exact_duplicates}
  - {kind: dsir, target: target, samples: 150}
export: {kind: webdataset, samples: 120, samples_per_shard: 10, columns: [words, phash]}
"""


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_no_byte(make_pool: Callable[..., Path], kills: int) -> None:
    tally = kill_loop(make_pool(shards=12, rows=24, extra=EXTRA), kills=kills, seed=kills)
    assert sum(tally.kills.values()) == kills
    assert tally.slices == 25 and tally.finished
    assert tally.again <= tally.bound
