import numpy as np
import pytest

from pipeline.demo.mixture_world import HARMFUL, write_mixture_world
from pipeline.demo.show_mixture import METRIC, REFERENCES, _measured, _split, show_mixture
from stages.mixture.trials_table import TrialsTable


def test_references_are_the_uniform_and_the_natural_mixture():
    assert all(abs(sum(shares.values()) - 1) < 1e-9 for shares in REFERENCES.values())
    assert REFERENCES["natural"][HARMFUL] == 0.4 and set(REFERENCES["uniform"].values()) == {0.25}


def test_a_split_source_has_all_its_shards_once(tmp_path):
    write_mixture_world(tmp_path / "corpus", pairs=1000)
    pool = [{"source": name, "shards": f"corpus/pool/{name}/*.tar"} for name in ("studio", "studio_again")]
    parts = {source["source"]: source["shards"] for source in _split(pool, tmp_path)}
    assert set(parts) == {"studio", "studio_again_1", "studio_again_2"}
    halves = [set(parts[f"studio_again_{i}"]) for i in (1, 2)]
    everything = {str(path.relative_to(tmp_path)) for path in (tmp_path / "corpus/pool/studio_again").glob("*.tar")}
    assert halves[0] | halves[1] == everything and not halves[0] & halves[1] and all(halves)


def test_losses_of_a_mixture_are_those_of_its_seeds_at_the_largest_budget():
    table = TrialsTable(
        sources=("a", "b"),
        metrics=("nll.a", METRIC),
        trials=tuple("abcdef"),
        budgets=np.array([1, 1, 4, 4, 4, 4]),
        seeds=np.array([0, 0, 1, 0, 0, 1]),
        shares=np.array([[0.5, 0.5], [1, 0], [0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]]),
        values=np.array([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 6]], float),
    )
    assert _measured(table, {"a": 0.5, "b": 0.5000001}) == [4, 3]
    assert _measured(table, {"a": 1.0}) == [5, 6]


@pytest.mark.slow
def test_every_way_finds_the_planted_mixture(tmp_path):
    outcome = show_mixture(tmp_path / "mixture", 2000, 2, lambda *_: None)
    checks = {check["name"]: check for check in outcome.record["checks"]}
    assert [check["passed"] for check in checks.values() if "harmful" in check["name"]] == [True] * 3, checks
    assert all(check["passed"] for check in checks.values()), checks
    assert (outcome.folder / "report.html").exists()
