import polars as pl
import pytest

from schemas.errors import CuveeError
from stages.rule import Context
from stages.target.random import Random

ROWS = pl.DataFrame({"uid": [f"{row:04d}" for row in range(1000)], "source": "s"})


def kept(seed: int, samples: int) -> set[str]:
    return set(ROWS["uid"]) - set(Random(samples=samples).judge(ROWS.lazy(), Context(seed)).dropped["uid"])


def test_every_row_is_as_likely_as_any_other() -> None:
    drawn = {uid: 0 for uid in ROWS["uid"]}
    for seed in range(200):
        for uid in kept(seed, 100):
            drawn[uid] += 1
    # 200 draws of a tenth: 20 +- 4.2 each; their variance, 18, is known to 5 % from 1,000 rows.
    counts = list(drawn.values())
    assert sum(counts) == 20_000 and min(counts) > 2 and max(counts) < 40
    assert sum((count - 20) ** 2 for count in counts) / 1000 == pytest.approx(18, rel=0.15)


def test_a_smaller_draw_is_part_of_a_larger_one_and_seeds_differ() -> None:
    assert kept(0, 50) < kept(0, 51) < kept(0, 400)
    assert len(kept(0, 100) & kept(1, 100)) < 30


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(CuveeError, match="asked for 1001 samples, and there are 1000 eligible rows"):
        kept(0, 1001)
