"""Two processes share a run: the same samples a step as one, the same losses to rounding, and one goes on for both."""

import json
from pathlib import Path

import pytest

from tests.stages.train import ranked

STEPS, KILLED = 14, 10
MADE = {
    "connector": {"kind": "moe_mlp", "experts": 3, "scope": "global_batch"}, "hidden": None, "budget": {"steps": STEPS},
    "checkpoint_steps": 4, "optimizer": "stable_adamw",
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave behind that are killed together."""
    folder = tmp_path_factory.mktemp("two")
    children = [ranked.CHILDREN.Process(target=ranked.rank, args=(n, 2, str(folder), KILLED, MADE)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    return folder


def test_two_ranks_draw_and_lose_what_one_does_and_one_goes_on_for_both(two: Path) -> None:
    whole, drawn = ranked.run(**MADE)
    (first, ours), (second, theirs) = (json.loads((two / f"{number}.json").read_text()) for number in range(2))
    assert first == second, "both see the loss of the whole batch"
    assert list(first) == [str(step) for step in range(1, KILLED + 1)]
    for step in range(KILLED):
        both = sorted(map(tuple, ours[step] + theirs[step]))
        assert both == sorted(map(tuple, drawn[step])) and len(ours[step]) == len(theirs[step]) == 6
        assert first[str(step + 1)] == pytest.approx(whole[step + 1], rel=1e-5)
    resumed, more = ranked.run(two / "checkpoint.safetensors", **MADE)
    assert list(resumed) == list(range(9, STEPS + 1)), "from the checkpoint of step 8"
    assert [sorted(map(tuple, step)) for step in more] == [sorted(map(tuple, step)) for step in drawn[8:]]
    assert list(resumed.values()) == pytest.approx([whole[step] for step in resumed], rel=1e-5)
