"""A whole run that is rated by a server: the command, the workspace, the key, the budget, restarts."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from pipeline.resolve import resolve
from schemas.errors import RecipeError
from stages.raters.openai_rater import OpenAI
from tests.stages.raters.chat_server import ChatServer
from tests.stages.raters.fake_server import FakeServer, says, serving, status

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-proj-this/is+a=key_0123456789"
ROWS = 2 * 2 * 3 + 3
"""Of the pool and its target."""


@pytest.fixture
def recipe(make_pool: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the recipe of a small pool with `mlm_filter` over a backend."""

    def write(backend: dict[str, Any]) -> Path:
        path = make_pool(rows=3)
        document = yaml.safe_load(path.read_text())
        document["score"] = [{"kind": "image_header"}, {"kind": "mlm_filter", "backend": backend}]
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def backend(server: FakeServer, **changed: Any) -> dict[str, Any]:
    own = {"kind": "openai", "base_url": server.url, "model": "m", "api_key_env": "RATER_KEY", "logprobs": False}
    return {**own, "concurrency": 2, **changed}


class Command:
    """Runs recipes in processes of their own and looks for the key in everything that they write."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.said: list[bytes] = []

    def run(self, recipe: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "run", str(recipe), *options],
            capture_output=True,
            text=True,
            env={**os.environ, "RATER_KEY": KEY, "RAY_TMPDIR": str(self.logs)},
            cwd=ROOT,
        )
        self.said += [done.stdout.encode(), done.stderr.encode()]
        return done

    def assert_no_key(self, folder: Path) -> None:
        places = [path for root in (folder, self.logs) for path in root.rglob("*")]
        files = [path for path in places if path.is_file() and not path.is_symlink()]
        assert any(self.logs in path.parents for path in files), "Ray's own logs are elsewhere"
        assert not [str(path) for path in files if KEY.encode() in path.read_bytes()]
        assert not [text for text in self.said if KEY.encode() in text]


@pytest.fixture
def command() -> Iterator[Command]:
    with tempfile.TemporaryDirectory(prefix="r") as logs:  # short: Ray's sockets lie below it
        yield Command(Path(logs))


def scores(recipe: Path) -> pl.DataFrame:
    return pl.read_parquet(recipe.parent / "work/scores/mlm_filter-*/*.parquet")


def record(recipe: Path) -> dict[str, Any]:
    runs = recipe.parent / "work/runs"
    found: dict[str, Any] = json.loads((runs / (runs / "latest").read_text().strip() / "run.json").read_text())
    return found


def test_a_run_over_a_real_server(server: ChatServer, recipe: Callable[..., Path], command: Command) -> None:
    price = {"input_per_1m": 1.0, "output_per_1m": 10.0}
    path = recipe(server.settings(api_key_env="RATER_KEY", price=price, budget={"requests": 1000, "cost": 1.0}))
    before = server.answered()
    done = command.run(path)
    assert done.returncode == 0, done.stderr
    table = scores(path)
    assert len(table) == ROWS
    assert table["mlm_image_text_matching"].is_between(0, 100).all() and table["mlm_filter_reason"].is_null().all()
    (line,) = record(path)["spending"]
    assert line["stage"] == "mlm_filter"
    # A server that is late on a busy machine is asked again: what it sent is counted all the same.
    sent = server.answered() - before
    assert 4 * ROWS <= sent <= line["requests"] and line["output_tokens"] <= sent
    assert any(f"mlm_filter: {line['requests']} requests" in note for note in record(path)["notes"])
    assert not (path.parent / "work/spending").exists()
    command.assert_no_key(path.parent)


def test_a_server_that_repeats_the_key_in_its_refusal(recipe: Callable[..., Path], command: Command) -> None:
    with serving([status(401, f"incorrect key {KEY} provided")]) as fake:
        path = recipe(backend(fake))
        refused = command.run(path)
    assert refused.returncode == 1 and "does not take the key" in refused.stderr and "***" in refused.stderr
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    command.assert_no_key(path.parent)


def test_a_run_stops_at_its_budget_and_goes_on_when_it_is_raised(recipe: Callable[..., Path], command: Command) -> None:
    with serving([says("75")]) as fake:
        path = recipe(backend(fake, budget={"requests": 25}))
        # One worker: a second could be stopped between a request and its answer, which is then counted and asked again.
        first = command.run(path, "--workers", "1")
        assert first.returncode == 1 and "25 of 25 requests" in first.stderr and "raise `budget`" in first.stderr
        assert len(fake.bodies) <= 25
        free = path.with_name("free.yaml")
        document = yaml.safe_load(path.read_text())
        free.write_text(yaml.safe_dump({**document, "score": document["score"][:1]}))
        assert command.run(free).returncode == 0  # another recipe of the workspace leaves the account alone
        path.write_text(path.read_text().replace("requests: 25", "requests: 60"))
        last = command.run(path, "--workers", "2")
    assert last.returncode == 0, last.stderr
    asked = [json.dumps(body) for body in fake.bodies]
    assert len(asked) == len(set(asked)) == 4 * ROWS  # no question was paid for twice
    assert scores(path)["mlm_image_text_matching"].to_list() == [75.0] * ROWS
    (line,) = record(path)["spending"]
    assert line["requests"] == 4 * ROWS and line["exact"]
    command.assert_no_key(path.parent)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"api_key_env": "RATER_KEY"}, "RATER_KEY is not set"),
        ({"api_key_env": KEY}, "not the name of a variable"),
        ({"api_key_env": "gsk_abcdefgh"}, "not the name of a variable"),
        ({"api_key": KEY}, "unknown key; did you mean 'api_key_env'"),
        ({"base_url": f"https://user:{KEY}@example.org/v1"}, "more than host"),
        ({"base_url": f"https://example.org/v1?key={KEY}"}, "more than host"),
        ({"base_url": "example.org"}, "no http or https address"),
        ({"base_url": f"https://example.org/v1;key={KEY}"}, "more than host"),
        ({"base_url": f"http://example.org:{KEY}"}, "no http or https address"),
        ({"base_url": f"http://[{KEY}"}, "no http or https address"),
        ({"request": {"api_key": KEY}}, "`request` sets 'api_key'"),
        ({"request": {"extra": [{"X-Auth-Token": KEY}]}}, "`request` sets 'X-Auth-Token'"),
        ({"request": {"extra_headers": {"x": KEY}}}, "`request` sets 'extra_headers'"),
        ({"request": KEY}, "`request`: Input should be a valid dictionary, found a str"),
        ({"concurrency": KEY}, "`concurrency`: Input should be a valid integer"),
        ({"budget": {"requests": KEY}}, "`budget.requests`: Input should be a valid integer"),
        ({"kind": "opnai", "api_key": KEY}, "openai"),
        ({"budget": {"cost": 1.0}}, "a budget in money needs"),
        ({"request": {"messages": []}}, "`request` sets 'messages'"),
        ({"concurency": 3}, "did you mean 'concurrency'"),
    ],
)
def test_what_cannot_work_is_refused_without_repeating_a_secret(
    changed: dict[str, Any], said: str, recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATER_KEY", raising=False)
    own = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "m", "api_key_env": None}
    with pytest.raises(RecipeError, match=said) as refused:
        resolve(recipe({**own, **changed}))
    assert KEY not in str(refused.value) and "gsk_" not in str(refused.value)


def test_fields_that_speak_of_tokens_are_no_secrets() -> None:
    limits = {"max_tokens": 9, "max_completion_tokens": 9, "top_logprobs": 5, "stop_token_ids": [1]}
    assert OpenAI(model="m", request=limits).request == limits


def test_what_the_address_depends_on(recipe: Callable[..., Path]) -> None:
    def address(**changed: Any) -> str:
        own = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "m", "api_key_env": None}
        return resolve(recipe({**own, **changed})).addresses["mlm_filter"]

    elsewhere = {"base_url": "https://example.org/v1", "concurrency": 3, "attempts": 2, "timeout_seconds": 5.0}
    paid = {"price": {"input_per_1m": 1, "output_per_1m": 1}, "budget": {"cost": 3.0}, "max_input_tokens": 9}
    assert address() == address(**elsewhere) == address(**paid, max_failed=0.5)
    others = [
        {"model": "n"},
        {"revision": "2"},
        {"logprobs": False},
        {"max_answer_tokens": 3},
        {"request": {"top_p": 1}},
    ]
    assert len({address(), *(address(**other) for other in others)}) == 6
