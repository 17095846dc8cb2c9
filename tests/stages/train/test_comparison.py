from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import CuveeError
from stages.train.comparison import Comparison, Job
from stages.train.connector import load_connector
from stages.train.differences import paired, summary
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench

Settings = Callable[..., TrainSettings]
Shard = Callable[..., str]


def opened(
    settings: TrainSettings, arms: dict[str, list[str]], folder: Path, held_out: pa.Table, parts: int = 1
) -> Workbench:
    for part in range(parts):
        comparison = Comparison(settings, arms, folder, folder / "features", seed=7)
        comparison.read(held_out, part, parts)
    return Workbench(comparison)


def test_jobs_resume_by_content_and_the_last_arm_is_held_against_the_others(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    broken = [("k9000.png", b"no image"), ("k9000.txt", b"a caption"), ("k9001.txt", b"alone"), ("k9002.json", b"{}")]
    arms = {"raw": [write_shard("raw", range(20), broken)], "curated": [write_shard("curated", range(10, 20))]}
    bench = opened(settings(), arms, tmp_path / "run", held_out)
    assert bench.pending() == [Job("raw", 0), Job("curated", 0), Job("raw", 1), Job("curated", 1)]
    first = bench.do(Job("raw", 0))
    assert first["samples"] == 20 and first["unusable"] == {"no_image": 2, "not_an_image": 1}
    assert first["evaluation"]["pairs"] == 12 and first["evaluation"]["generated"] == 6
    again = opened(settings(), arms, tmp_path / "run", held_out)
    assert again.pending() == [Job("curated", 0), Job("raw", 1), Job("curated", 1)]
    results = [first, *(again.do(job) for job in again.pending())]
    assert again.pending() == []
    assert opened(settings(learning_rate=1e-3), arms, tmp_path / "run", held_out).pending() == again.comparison.jobs()

    said = summary(results, ["raw", "curated"])
    nll = next(d for d in said["differences"] if d["metric"] == "nll_per_token")
    by_seed = [[r["metrics"]["nll_per_token"] for r in said["arms"][arm]["runs"]] for arm in ("curated", "raw")]
    assert nll["per_seed"] == [by_seed[0][0] - by_seed[1][0], by_seed[0][1] - by_seed[1][1]]
    assert (nll["left"], nll["right"]) == ("curated", "raw")
    identities = {"vision": settings().vision_identity, "language_model": settings().language_identity}
    load_connector(tmp_path / "run" / "connectors" / "raw-0", **identities)


def test_results_do_not_depend_on_shard_order_or_on_who_computed_the_visual_tokens(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    parts = [write_shard("one", range(90)), write_shard("two", range(60, 150))]
    one = opened(settings(), {"raw": parts}, tmp_path / "one", held_out)
    two = opened(settings(), {"raw": parts[::-1]}, tmp_path / "two", held_out, parts=3)
    assert one.do(Job("raw", 0)) == two.do(Job("raw", 0))


def test_seeds_differ_and_arms_share_the_start(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    from stages.train.run import connector_card

    bench = opened(settings(), {"raw": [write_shard("raw", range(12))]}, tmp_path, held_out)
    same, other = (connector_card(settings(), bench.frozen, seed) for seed in ("7/0", "7/1"))
    assert same.init_seed != other.init_seed
    assert bench.do(Job("raw", 0))["curve"] != bench.do(Job("raw", 1))["curve"]


def test_what_cannot_be_compared_is_refused(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    empty = write_shard("empty", [], [("k1.png", b"no image"), ("k1.txt", b"a caption")])
    with pytest.raises(CuveeError, match=r"'raw' has no sample.*not_an_image"):
        opened(settings(), {"raw": [empty]}, tmp_path / "a", held_out)
    with pytest.raises(CuveeError, match="cannot be read"):
        opened(settings(), {"raw": [str(tmp_path / "missing.tar")]}, tmp_path / "b", held_out)
    sound = {"raw": [write_shard("raw", range(4))]}
    with pytest.raises(CuveeError, match="at least 2"):
        opened(settings(), sound, tmp_path / "c", held_out.slice(0, 1))
    with pytest.raises(CuveeError, match="128 positions"):
        opened(settings(max_tokens=200), sound, tmp_path / "d", held_out)


def test_paired_interval_is_students() -> None:
    # Mean 2, standard deviation 1, n = 3: t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3).
    found = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found["mean"] == 2.0 and found["per_seed"] == [1.0, 2.0, 3.0]
    assert found["high"] - 2.0 == pytest.approx(2.484138, abs=1e-5)
    assert paired([1.0], [0.5]) == {"mean": 0.5, "low": None, "high": None, "per_seed": [0.5]}


def test_differences_may_be_from_a_named_arm():
    names = ("chance", "one", "other")
    losses = {"chance": (3.0, 3.2, 3.1), "one": (2.9, 3.0, 3.0), "other": (3.5, 3.6, 3.7)}
    facts = {"samples": 1, "distinct_images": 1, "unusable": {}, "evaluation": {}, "curve": []}
    results = [
        {**facts, "arm": arm, "seed": seed, "metrics": {"nll_per_token": losses[arm][seed]}}
        for arm in names
        for seed in range(3)
    ]
    said = summary(results, names, against="chance")["differences"]
    assert [(line["left"], line["right"]) for line in said] == [("one", "chance"), ("other", "chance")]
    assert said[0]["per_seed"] == pytest.approx([-0.1, -0.2, -0.1]) and said[1]["low"] > 0 > said[0]["mean"]


def members(path: Path, sources: dict[str, str]) -> str:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"exported_key": list(sources), "source": list(sources.values())}), path)
    return str(path)


def steered(
    settings: TrainSettings, tars: list[str], table: str, folder: Path, held_out: pa.Table, parts: int = 1
) -> Workbench:
    for part in range(parts):
        arms = {"raw": tars[:1], "curated": tars}
        comparison = Comparison(settings, arms, folder, folder / "features", 7, steered=("curated", table))
        comparison.read(held_out, part, parts, target=held_out.slice(0, 6))
    return Workbench(comparison)


def test_a_schedule_steers_the_sources_of_one_arm(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    tars = [write_shard("one", range(40)), write_shard("two", range(40, 70))]
    table = members(tmp_path / "members.parquet", {f"k{n:04d}": "even" if n % 2 == 0 else "odd" for n in range(90)})
    made = settings(schedule={"kind": "doge", "every": 2, "probe": 4})
    bench = steered(made, tars, table, tmp_path / "a", held_out)
    found = bench.do(Job("curated", 0))
    assert {name: len(part) for name, part in bench.sources.items()} == {"even": 35, "odd": 35}
    assert [update["step"] for update in found["schedule"]["updates"]] == [0, 2, 4]
    assert sum(found["schedule"]["drawn"].values()) == 24 and "schedule" not in bench.do(Job("raw", 0))
    turned = steered(made, tars[::-1], table, tmp_path / "b", held_out, parts=3)
    assert turned.do(Job("curated", 0)) == found, "whoever computed, whatever came first"
    plain = opened(settings(), {"raw": tars[:1], "curated": tars}, tmp_path / "c", held_out)
    assert plain.fingerprint(Job("raw", 0)) != bench.fingerprint(Job("raw", 0))
    other = steered(settings(schedule={"kind": "doge", "every": 3, "probe": 4}), tars, table, tmp_path / "a", held_out)
    assert Job("curated", 0) in other.pending()


def test_every_arm_goes_on_with_old_samples(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    arms = {"raw": [write_shard("new", range(20))]}
    old = write_shard("old", range(100, 140))
    replay = {"shards": [old], "share": 0.25}
    bench = opened(settings(replay=replay), arms, tmp_path / "a", held_out)
    found = bench.do(Job("raw", 0))
    assert found["replay"] == {"samples": 40, "share": 0.25, "drawn": 6}
    assert found["curve"] != opened(settings(), arms, tmp_path / "b", held_out).do(Job("raw", 0))["curve"]
    start = settings(start=str(tmp_path / "a" / "connectors" / "raw-0"))
    on = opened(start, arms, tmp_path / "c", held_out)
    assert on.do(Job("raw", 0))["curve"][0][1] < found["curve"][0][1], "it goes on where the connector stood"
    empty = write_shard("empty", [], [("k1.png", b"no image"), ("k1.txt", b"a caption")])
    with pytest.raises(CuveeError, match=r"`replay\.shards` hold no sample"):
        opened(settings(replay={"shards": [empty], "share": 0.5}), arms, tmp_path / "d", held_out)


def test_a_member_without_a_source_is_refused(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    tars = [write_shard("one", range(9))]
    table = members(tmp_path / "members.parquet", {f"k{n:04d}": "even" for n in range(8)})
    bench = steered(settings(schedule={"kind": "two_phase"}), tars, table, tmp_path / "a", held_out)
    with pytest.raises(CuveeError, match="does not name sample 'k0008'"):
        bench.do(Job("curated", 0))


def test_texts_take_their_share_and_train_what_stands_inside_the_language_model(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    arms = {"raw": [write_shard("raw", range(20))]}
    texts = write_shard("texts", range(3), [("t1.txt", b"a red circle"), ("t2.txt", b"  ")])
    told = {"text_only": {"shards": [texts], "share": 0.25}, "tune_norms": "llm"}
    bench = opened(settings(**told, seeds=1), arms, tmp_path / "run", held_out)
    assert bench.text is not None and bench.text.corpus.keys == ("k0000", "k0001", "k0002", "t1")
    assert set(bench.text.corpus.images) == {""} and bench.text.corpus.unusable == {"no_caption": 1}
    found = bench.do(bench.pending()[0])
    steps, batch = settings().steps, settings().batch
    assert found["text_only"] == {"samples": 4, "share": 0.25, "drawn": round(steps * batch * 0.25)}
    other = opened(settings(**{**told, "text_only": {"shards": arms["raw"], "share": 0.25}}), arms, tmp_path, held_out)
    job = bench.comparison.jobs()[0]
    assert other.fingerprint(job) != bench.fingerprint(job), "other texts, another result"
    with pytest.raises(ValueError, match="the share would be wasted; leave it out, or set `lora`"):
        settings(text_only=told["text_only"])
    with pytest.raises(ValueError, match="nothing of a batch"):
        settings(**{**told, "replay": {"shards": arms["raw"], "share": 0.75}})
    with pytest.raises(CuveeError, match=r"`text_only\.shards` hold no sample with a caption"):
        empty = {"shards": [write_shard("none", [], [("t.txt", b" ")])], "share": 0.5}
        opened(settings(**{**told, "text_only": empty}), arms, tmp_path / "e", held_out)
