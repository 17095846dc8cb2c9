"""Whatever a budget counts, it ends used up, with the rate at its floor."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.train.budget import Budget, Meter, Stand
from stages.train.rates import rate
from stages.train.reference_time import read_table
from stages.train.settings import TrainSettings
from tests.stages.train import generated

Settings = Callable[..., TrainSettings]


def stands(meter: Meter, tokens: list[int]) -> list[Stand]:
    """Steps of so many tokens each, over and over, until the budget is used."""
    found, used = [], 0
    while used < meter.total:
        found.append(meter.stand(used, tokens[len(found) % len(tokens)]))
        used += found[-1].cost
    return found


def steps(count: int) -> list[Stand]:
    return stands(Meter(count), [0])


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5000), st.lists(st.integers(1, 90), min_size=1, max_size=20), st.floats(0, 0.9), st.booleans(),
    st.sampled_from(["tokens", "reference_seconds", "steps"]),
)  # fmt: skip
def test_every_budget_ends_at_the_floor(total: int, tokens: list[int], warmup: float, cycle: bool, unit: str) -> None:
    budget = {"tokens": total} if unit == "tokens" else {unit: total}
    shape = "one_cycle" if cycle else "cosine"
    made = generated.settings(
        budget=budget, warmup=warmup, rate=shape, floor=0.1, learning_rate=1.0,
        **({"reference_table": "table.json"} if unit == "reference_seconds" else {}),
    )  # fmt: skip
    meter = Meter.of(made.budget, made.steps if unit == "steps" else None, 1.7)
    seen = stands(meter, tokens)
    rates = [rate(made, stand) for stand in seen]
    assert all(0 < value <= 1 for value in rates)
    assert [stand.is_last for stand in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) == 1 or rates[-1] == pytest.approx(0.1)
    assert sum(stand.marks(100) for stand in seen) <= 101 and seen[-1].marks(100)


def test_the_rate_rises_then_ends_at_its_floor(settings: Settings) -> None:
    made = settings(budget={"samples": 397}, warmup=0.1, floor=0.1, learning_rate=1.0)
    assert made.steps == 100
    rates = [rate(made, stand) for stand in steps(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0 and rates[99] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[54] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 44 / 89)))
    assert rate(settings(budget={"steps": 1}), steps(1)[0]) > 0


def test_one_cycle_is_up_and_down_in_equal_parts(settings: Settings) -> None:
    made = settings(budget={"steps": 100}, rate="one_cycle", learning_rate=1.0)
    rates = [rate(made, stand) for stand in steps(100)]
    assert rates[:50] == pytest.approx([(step + 1) / 51 for step in range(50)])
    assert rates[50:] == pytest.approx([1 - step / 49 for step in range(50)])


def test_an_endless_rate_cools_down_stays_and_is_annealed(settings: Settings) -> None:
    shape = {"constant": 0.4, "cooldown": 0.2, "anneal": 0.1}
    made = settings(budget={"steps": 100}, warmup=0.1, floor=0.1, learning_rate=1.0, infinite=shape)
    rates = [rate(made, stand) for stand in steps(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0 and rates[20] == pytest.approx(0.7) and rates[30:90] == [0.4] * 60
    assert rates[90:] == pytest.approx([0.4 * 0.25 ** (step / 10) for step in range(1, 11)])
    on = settings(budget={"steps": 50}, warmup=0.0, learning_rate=1.0, infinite={"cooldown": 0.0, "anneal": 0.0})
    assert [rate(on, stand) for stand in steps(50)] == [0.5] * 50, "another run goes on at the constant"


def table(path: Path, *rows: tuple[int, int, int, str, float]) -> Path:
    names = ("layers", "seq", "batch", "kind", "seconds")
    lines = [{"model": "tiny", **dict(zip(names, row, strict=True))} for row in rows]
    path.write_text(json.dumps({"machine": "one", "rows": lines}))
    return path


def test_a_table_gives_the_seconds_of_a_step_or_says_what_it_has(tmp_path: Path) -> None:
    read = read_table(table(tmp_path / "a.json", (2, 20, 4, "train", 0.5), (2, 20, 4, "forward", 0.2)))
    assert read.seconds("tiny", 2, 20, 4, "train") == 0.5 and read.seconds("tiny", 2, 20, 4, "forward") == 0.2
    with pytest.raises(RecipeError, match=r"batch 8, train; it has \(tiny, 2 layers, seq 20, batch 4, train\)"):
        read.seconds("tiny", 2, 20, 8, "train")
    with pytest.raises(RecipeError, match="is no table"):
        read_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    "slip",
    [
        ((6, 20, 4, "train", 0.09188), (7, 20, 4, "train", 0.01052), (8, 20, 4, "train", 0.1186)),  # as published
        ((2, 20, 4, "train", 0.5), (2, 20, 8, "train", 0.4)),
        ((2, 40, 4, "train", 0.3), (2, 20, 4, "train", 0.4)),
        ((2, 20, 4, "train", 0.1), (2, 20, 4, "forward", 0.2)),
        ((2, 20, 4, "train", 0.1), (2, 20, 4, "train", 0.1)),
    ],
)
def test_a_table_in_which_more_work_takes_less_time_is_refused(
    tmp_path: Path, slip: tuple[tuple[int, int, int, str, float], ...]
) -> None:
    with pytest.raises(RecipeError, match="more work cannot take less time"):
        read_table(table(tmp_path / "slip.json", *slip))


def test_budgets_that_do_not_fit_are_refused(settings: Settings) -> None:
    assert Meter.of(Budget(reference_seconds=3), None, 0.4) == Meter(3 * 10**9, 4 * 10**8)
    for wrong, said in (
        ({"budget": {"tokens": 5, "steps": 5}}, "exactly one"),
        ({"budget": {"tokens": 0}}, "tokens"),
        ({"budget": {"reference_seconds": 9}}, "needs `reference_table`"),
        ({"budget": {"tokens": 9}, "schedule": {"kind": "doge"}}, "must know how many steps"),
        ({"rate": "one_cycle", "floor": 0.1, "infinite": {}}, "two shapes of one rate"),
        ({"batch": 9, "workers_per_run": 2}, "does not part evenly"),
        ({"compile": True, "gradient_checkpointing": True}, "leave out `gradient_checkpointing`"),
        (
            {
                "workers_per_run": 2,
                "connector": "moe_mlp",
                "lora": {},
                "text_only": {"shards": ["a.tar"], "share": 0.1},
            },
            "choose another `scope`",
        ),
    ):
        with pytest.raises(ValidationError, match=said):
            settings(**wrong)
