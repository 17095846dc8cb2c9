"""Stages whose model the engine runs: everything but vLLM itself, in whose place a function answers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import pipeline.generate
from pipeline.cluster import Cluster
from pipeline.generate import _whole, postprocess, processor_config
from pipeline.resolve import Resolved, resolve
from pipeline.run import run
from schemas.errors import CuveeError, RecipeError
from stages.generation import answering, asking
from stages.raters.backend import Answer, RaterSample
from stages.raters.rubric import Question
from stages.raters.vllm_rater import VLLM
from tests.pools import picture
from tests.stages.raters.tiny_mllm import write_llava

QUESTION = Question(name="match", text="How well do they match?")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture
def recipe(make_pool: Callable[..., Path], model: Path) -> Path:
    path = make_pool(rows=3)
    document = yaml.safe_load(path.read_text())
    backend = {"kind": "vllm", "model": str(model), "max_failed": 1.0}
    document["score"] = [
        {"kind": "image_header"},
        {"kind": "mlm_filter", "backend": backend},
        {"kind": "rater", "rubric": "dataman", "backend": backend},
        {"kind": "caption_text"},
    ]
    path.write_text(yaml.safe_dump(document))
    return path


def answer(row: dict[str, Any]) -> dict[str, Any]:
    """As the processor would give it back: the number in the caption, or a label."""
    (message,) = json.loads(row["request"])
    image, text = message["content"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    number = int(re.search(r"number (\d+)", text["text"])[1]) % 5 + 1  # type: ignore[index]
    said = "food" if "Which field" in text["text"] else str(number)
    if number == 5:
        return {**row, "__inference_error__": "too long"}
    return postprocess({**row, "generated_text": said, "generated_tokens": [1], "logprobs": None}, 16)


def scored(recipe: Path, monkeypatch: pytest.MonkeyPatch, process: Any = None) -> Resolved:
    monkeypatch.setattr(pipeline.generate, "processor", lambda _: process or (lambda rows: rows.map(answer)))
    monkeypatch.setattr(pipeline.generate, "_refuse_without_gpus", lambda *_: None)
    resolved = resolve(recipe, models=False)
    with Cluster(workers=2) as cluster:
        run(resolved, cluster, until="score")
    return resolved


def table(resolved: Resolved, name: str) -> pl.DataFrame:
    folder = resolved.workspace.root / "scores" / resolved.addresses[name]
    return pl.read_parquet(folder / "*.parquet")


def test_shards_seen_for_the_first_time(recipe: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object) -> None:
    resolved = scored(recipe, monkeypatch)
    found = table(resolved, "mlm_filter").sort("mlm_image_text_matching")
    numbers = [
        number % 5 + 1 for start in (0, 10_000, 20_000) for number in range(start, start + (6, 6, 3)[start // 10_000])
    ]
    assert found["mlm_image_text_matching"].to_list() == sorted(
        (None if number == 5 else float(number) for number in numbers), key=lambda value: value or -1
    )
    failed = found.filter(pl.col("mlm_image_text_matching").is_null())
    assert set(failed["mlm_filter_reason"]) == {"rater_failed"}
    rated = table(resolved, "rater")
    assert rated["rater_domain"].drop_nulls().unique().to_list() == ["food"] and len(rated) == 15
    assert len(table(resolved, "caption_text")) == 15
    assert not list(resolved.workspace.root.glob("scores/*/.staged"))


def test_known_shards_and_nothing_twice(recipe: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object) -> None:
    whole = recipe.read_text()
    document = yaml.safe_load(whole)
    recipe.write_text(yaml.safe_dump({**document, "score": document["score"][:1]}))
    scored(recipe, monkeypatch)
    recipe.write_text(whole)
    first = scored(recipe, monkeypatch)
    assert len(table(first, "mlm_filter")) == len(table(first, "rater")) == len(table(first, "caption_text")) == 15

    def never(_: Any) -> Any:
        raise AssertionError("nothing is missing")

    scored(recipe, monkeypatch, never)


def test_a_lost_reply_is_told(recipe: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object) -> None:
    with pytest.raises(CuveeError, match="did not get all their replies"):
        scored(recipe, monkeypatch, lambda rows: rows.map(answer).filter(lambda row: row["number"] != 1))


def test_without_gpus_it_is_refused(recipe: Path, ray_cluster: object) -> None:
    with Cluster(workers=2) as cluster, pytest.raises(CuveeError, match=r"needs 1 GPUs.*vllm serve"):
        run(resolve(recipe, models=False), cluster, until="score")


def test_without_vllm_it_is_refused(recipe: Path) -> None:
    pytest.importorskip("ray")
    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(RecipeError, match=r"vLLM is not installed.*vllm serve"):
            resolve(recipe)
    else:
        resolve(recipe)


def test_the_configuration_is_one_that_ray_takes(model: Path) -> None:
    backend = VLLM(model=str(model), gpus_per_replica=2, replicas=3, engine={"gpu_memory_utilization": 0.8})
    config = processor_config(backend.generation())
    assert type(config).__name__ == "vLLMEngineProcessorConfig"
    assert (config.model_source, config.concurrency, config.batch_size) == (str(model), 3, 64)
    wanted = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.8, "trust_remote_code": False, "seed": 0}
    assert wanted.items() <= config.engine_kwargs.items()
    assert config.prepare_multimodal_stage["enabled"] and not config.tokenize_stage


def test_what_the_engine_may_not_be_told(model: Path) -> None:
    with pytest.raises(RecipeError, match="trust_remote_code"):
        VLLM(model=str(model), engine={"trust_remote_code": True}).check()


def test_the_model_is_known_by_its_content(model: Path, tmp_path: Path) -> None:
    first = VLLM(model=str(model)).identity()
    assert first == VLLM(model=str(model), replicas=4, batch_size=8).identity()
    assert str(model) not in json.dumps(first)
    assert first != VLLM(model=str(model), dtype="float16").identity()
    assert first != VLLM(model=str(write_llava(tmp_path / "m", side=48))).identity()


def test_an_engine_that_fails_at_everything_stops_the_run() -> None:
    broken = [{"work": f"{row}", "number": 0, "of": 1, "__inference_error__": "out of memory"} for row in range(50)]
    names = [row["work"] for row in broken]
    whole = _whole(names, broken, 0.05)
    with pytest.raises(CuveeError, match=r"11 of 11 requests failed.*out of memory"):
        list(whole)
    assert len(list(_whole(names, broken, 1.0))) == 50


def test_asking_then_answering() -> None:
    """Questions in order; a broken image asks nothing; logprobs as vLLM gives them make an expectation."""
    rater = VLLM(model="unused").open()
    samples = [RaterSample(b"no image", "x"), RaterSample(picture(1), "y")]
    with asking() as noted:
        rater.rate(samples, [QUESTION])
    assert len(noted.requests) == 1 and '"y"' in noted.requests[0][0]["content"][1]["text"]
    rivals = {
        7: {"logprob": -1.0, "rank": 2, "decoded_token": "80"},
        9: {"logprob": -1.0, "rank": 1, "decoded_token": "60"},
        "11": None,
    }
    row = {"work": "w", "number": 0, "of": 1, "generated_text": "60", "generated_tokens": [9], "logprobs": [rivals]}
    reply = json.loads(postprocess(row, 16)["reply"])
    assert list(reply["tokens"][0]) == ["60", "80"]
    with answering([reply]):
        assert rater.rate(samples, [QUESTION]) == [[Answer(None, "not_an_image")], [Answer(70.0)]]
    short = {**row, "generated_text": "It is 8", "generated_tokens": [1, 2, 3], "logprobs": None}
    for most, value in ((4, Answer(8.0)), (3, Answer(None, "unparseable_score"))):
        with answering([json.loads(postprocess(short, most)["reply"])]):
            assert rater.rate(samples[1:], [QUESTION]) == [[value]]
    with pytest.raises(RecipeError, match="inside a run"):
        rater.rate(samples, [QUESTION])
