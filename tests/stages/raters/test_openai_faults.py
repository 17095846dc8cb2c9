"""Everything that goes wrong with a server: what is tried again, what stops the run, what is the sample's own fault."""

import asyncio
import base64
import concurrent.futures
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import CuveeError
from stages.raters.backend import Answer, RaterSample
from stages.raters.openai_call import Endpoint
from stages.raters.openai_rater import OpenAI, OpenAIRater
from stages.raters.prompt import prompt
from stages.raters.rubric import Question
from stages.spending import Spent, SpentError, ledger_in, spent_in
from tests.pools import picture
from tests.stages.raters.fake_server import (
    Action,
    FakeServer,
    breaks_off,
    completion,
    hangs,
    logprobs,
    raw,
    says,
    serving,
    status,
)

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-very-secret-0123456789"
QUESTION = Question(name="match", text="How well do they match?")
SAMPLE = RaterSample(picture(1), "a picture")
PRICE = {"input_per_1m": 1.0, "output_per_1m": 10.0}


def waiting(waited: list[float]) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    return sleep


def rater(server: FakeServer | str, waited: list[float] | None = None, **settings: Any) -> OpenAIRater:
    url = server if isinstance(server, str) else server.url
    made = OpenAI(base_url=url, model="m", **{"logprobs": False, "concurrency": 1, **settings})
    endpoint = Endpoint(f"{url}/chat/completions", KEY, made.attempts, made.timeout_seconds)
    return OpenAIRater(made, endpoint, waiting([] if waited is None else waited))


def rate(server: FakeServer | str, samples: Sequence[RaterSample] = (SAMPLE,), **settings: Any) -> list[Answer]:
    return [answers[0] for answers in rater(server, **settings).rate(samples, [QUESTION])]


PASSING: dict[str, Action] = {
    "429": status(429),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "520": status(520),
    "529": status(529),
    "hangs": hangs,
    "breaks off": breaks_off,
    "no JSON": raw(b"<html>502 Bad Gateway</html>"),
    "half a JSON": raw(b'{"choices": ['),
    "not UTF-8": raw(b"\xff\xfe\x00"),
    "null": raw(b"null"),
    "a list": raw(b"[1]"),
    "no choices": raw(b"{}"),
    "empty choices": raw(b'{"choices": []}'),
    "no message": raw(b'{"choices": [{}]}'),
    "no text": says(None),
    "a number for text": raw(json.dumps(completion(None) | {"choices": [{"message": {"content": 75}}]}).encode()),
    "wrong logprobs": says("75", logprobs={"content": [{"token": "75", "logprob": "high"}]}),
    "logprobs above 0": says("75", logprobs=logprobs({"75": 3.0})),
    "logprobs without tokens": says("75", logprobs={"content": [{"logprob": -1.0}]}),
    "NaN for a logprob": says("75", logprobs=logprobs({"75": float("nan")})),
    "too deep": raw(b"[" * 200_000),
    "an error without a code": raw(b'{"error": {"message": "overloaded"}}'),
    "an error with a code that passes": raw(b'{"error": {"message": "overloaded", "code": 429}}'),
    "too long": raw(b" " * (9 << 20)),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(fault: str) -> None:
    waited: list[float] = []
    with serving([PASSING[fault], PASSING[fault], says("75")]) as server:
        found = rater(server, waited, timeout_seconds=0.5 if fault == "hangs" else 30).rate([SAMPLE], [QUESTION])
    assert found == [[Answer(75.0)]]
    assert len(server.bodies) == 3
    assert 0.5 <= waited[0] <= 1 and 1 <= waited[1] <= 2


def test_waits_grow_up_to_a_minute() -> None:
    waited: list[float] = []
    with serving([*[status(503)] * 9, says("75")]) as server:
        rater(server, waited, attempts=10).rate([SAMPLE], [QUESTION])
    assert all(0.5 * most <= wait <= most for wait, most in zip(waited, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True))


@pytest.mark.parametrize("asked", ["7", "20.5", "0", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-3"])
def test_the_server_says_how_long_to_wait(asked: str) -> None:
    waited: list[float] = []
    with serving([status(429, Retry_After=asked), says("75")]) as server:
        rater(server, waited).rate([SAMPLE], [QUESTION])
    low, high = {"7": (7, 8), "20.5": (20.5, 21.5)}.get(asked, (0.5, 1))
    assert low <= waited[0] <= high


@pytest.mark.parametrize(("asked", "heard"), [("3600", "3600"), ("9" * 400, r"1e\+09")])
def test_a_server_that_asks_for_an_hour_stops_the_run(asked: str, heard: str) -> None:
    waited: list[float] = []
    refused = pytest.raises(CuveeError, match=f"asks to wait {heard} s")
    with serving([status(429, Retry_After=asked)]) as server, refused:
        rater(server, waited).rate([SAMPLE], [QUESTION])
    assert not waited and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (status(401), "api_key_env"),
        (status(402), "no money"),
        (status(403), "may not use"),
        (status(404), "base_url"),
        (status(405), "status 405"),
        (status(407), "the proxy does not take"),
        (raw(b'{"error": {"message": "Insufficient credits", "code": 402}}'), "status 402.*Insufficient credits"),
        (status(501), "status 501"),
        (status(307, Location="http://127.0.0.1:9/v1"), "status 307"),
        (status(429, "insufficient_quota: you exceeded your current quota"), "insufficient_quota"),
    ],
)
def test_what_no_second_try_mends_stops_the_run_at_once(action: Action, said: str) -> None:
    with serving([action]) as server, pytest.raises(CuveeError, match=said):
        rate(server, [SAMPLE] * 5)
    assert len(server.bodies) == 1


def test_a_dead_port_stops_the_run_after_all_tries() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    waited: list[float] = []
    with pytest.raises(CuveeError, match=r"no connection.*after 6 tries.*run again"):
        rater(f"http://127.0.0.1:{port}/v1", waited).rate([SAMPLE], [QUESTION])
    assert len(waited) == 5


def test_limits_that_stay_stop_the_run() -> None:
    with serving([status(429)]) as server, pytest.raises(CuveeError, match=r"lower `concurrency`.*after 3 tries"):
        rate(server, attempts=3)
    assert len(server.bodies) == 3


def test_a_server_without_tls_is_not_asked_twice() -> None:
    with serving([says("75")]) as server, pytest.raises(CuveeError, match="SSL"):
        rate(server.url.replace("http:", "https:"))
    assert not server.bodies


@pytest.mark.parametrize(
    ("scheme", "proxy", "said"),
    [
        ("http", "http://joe:{password}@127.0.0.1:{port}", "the proxy does not take"),
        ("https", "http://joe:{password}@127.0.0.1:{port}", "status 501"),
        ("http", "http://joe:{password}@127.0.0.1:99999", r"//\*\*\*@"),
        ("http", "http://joe:{password}#1@127.0.0.1:{port}", r"//\*\*\*@"),
    ],
)
def test_a_proxys_password_is_not_shown(scheme: str, proxy: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving([status(407)]) as server:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.format(password="s3cret", port=server.server_port))
        with pytest.raises(CuveeError, match=said) as refused:
            rate(f"{scheme}://api.example.test/v1")
    assert "s3cret" not in str(refused.value) and len(server.bodies) <= 1


def poisoned(fault: Action) -> Callable[[int, dict[str, Any]], Action]:
    """A server that cannot take one caption."""
    return lambda _, body: fault if "poison" in json.dumps(body) else says("75")


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        (status(400, "cannot decode the image"), "rater_refused", 1),
        (status(413), "rater_refused", 1),
        (status(422), "rater_refused", 1),
        (status(500), "rater_failed", 3),
        (breaks_off, "rater_failed", 3),
        (raw(b"{}"), "rater_failed", 3),
    ],
)
def test_one_sample_that_no_server_takes_does_not_stop_the_run(fault: Action, reason: str, tries: int) -> None:
    samples = [SAMPLE, RaterSample(picture(2), "poison"), RaterSample(picture(3), "another")]
    with serving(poisoned(fault)) as server:
        assert rate(server, samples, attempts=3) == [Answer(75.0), Answer(None, reason), Answer(75.0)]
    # A plain sample tells whose fault it was; what the server does not call wrong is asked once more.
    assert len(server.bodies) == 2 + tries + 1 + (tries if reason == "rater_failed" else 0)


def test_a_short_outage_is_no_samples_fault() -> None:
    samples = [RaterSample(None, f"caption {number}") for number in range(5)]
    with serving(lambda number, _: status(503) if number < 3 else says("75")) as server:
        assert rate(server, samples, attempts=3) == [Answer(75.0)] * 5
    assert len(server.bodies) == 3 + 1 + 5


@pytest.mark.parametrize("fault", [status(400, "unknown field"), status(500), raw(b"{}")])
def test_where_a_plain_sample_fails_too_it_is_the_server(fault: Action) -> None:
    with serving([fault]) as server, pytest.raises(CuveeError, match="a plain sample fails as well"):
        rate(server, [SAMPLE] * 50, attempts=2)
    assert len(server.bodies) <= 4


def test_many_failing_samples_stop_the_run() -> None:
    samples = [RaterSample(None, f"poison {number}") for number in range(100)]
    with serving(poisoned(status(400))) as server, pytest.raises(CuveeError, match="11 of 11 requests"):
        rate(server, samples)
    with serving(poisoned(status(400))) as server:
        found = rate(server, samples, max_failed=1.0)
    assert found == [Answer(None, "rater_refused")] * 100


@pytest.mark.parametrize(
    "reply", [says("", finish_reason="content_filter"), says(None, finish_reason="content_filter")]
)
def test_a_content_filter_refuses_one_sample(reply: Action) -> None:
    with serving([reply, says("75")]) as server:
        assert rate(server, [SAMPLE, RaterSample(None, "x")]) == [Answer(None, "rater_refused"), Answer(75.0)]


def test_broken_images_are_never_sent() -> None:
    samples = [RaterSample(b"no image", "x"), RaterSample(picture(1)[:-40], "x"), RaterSample(b"", "x"), SAMPLE]
    with serving([says("75")]) as server:
        reasons = [answer.reason for answer in rate(server, samples)]
        assert rate(server, max_image_bytes=100)[0].reason == "image_too_large"
    assert reasons == ["not_an_image", "truncated_image", "empty_image", None]
    assert len(server.bodies) == 1


def test_what_is_sent() -> None:
    with serving([says("75")]) as server:
        rate(server, revision="r", request={"seed": None, "top_p": 0.5}, logprobs=False)
    (body,), (headers,) = server.bodies, server.headers
    assert server.paths == ["/v1/chat/completions"]
    assert headers["Authorization"] == f"Bearer {KEY}"
    (message,) = body.pop("messages")
    assert body == {"model": "m", "temperature": 0, "max_tokens": 16, "top_p": 0.5}
    url = message["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == SAMPLE.image
    assert message["content"][1]["text"] == prompt("a picture", QUESTION)


def test_never_more_at_once_than_allowed_and_in_order() -> None:
    def numbered(_: int, body: dict[str, Any]) -> Action:
        return says(str(int(body["messages"][0]["content"][-1]["text"].split("number ")[1].split('"')[0])))

    samples = [RaterSample(None, f"number {number}") for number in range(60)]
    with serving(numbered) as server:
        found = rate(server, samples, concurrency=5)
    assert [answer.value for answer in found] == [float(number) for number in range(60)]
    assert 1 <= server.most_busy <= 5


class TestWhereALoopRunsAlready:
    """As in a notebook, or in an actor with async methods."""

    def test_answers_errors_and_counts_are_those_of_any_other_place(self) -> None:
        async def inside(of: OpenAIRater, samples: Sequence[RaterSample]) -> list[list[Answer]]:
            return of.rate(samples, [QUESTION])

        with serving([says("75"), says("20")]) as server:
            of = rater(server)
            assert asyncio.run(inside(of, [SAMPLE, RaterSample(None, "b")])) == [[Answer(75.0)], [Answer(20.0)]]
            assert of.asked == 2
        with serving([status(401)]) as server, pytest.raises(CuveeError, match="does not take the key"):
            asyncio.run(inside(rater(server), [SAMPLE]))

    def test_nothing_more_is_asked_after_an_interrupt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def inside() -> None:
            def interrupted(*_: object) -> None:
                server.await_requests(1)
                raise KeyboardInterrupt

            monkeypatch.setattr(concurrent.futures.Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                of.rate([SAMPLE, RaterSample(None, "b")], [QUESTION])

        with serving([hangs, says("20")]) as server:
            of = rater(server, timeout_seconds=1.0)  # without an end of the batch, the next one would be asked
            asyncio.run(inside())
            assert len(server.bodies) == 1


def test_expectation_where_numbers_are_tokens() -> None:
    reply = says("75", logprobs=logprobs({"75": -0.5, "80": -1.5, "high": -2.0, " 70": -3.0, "250": -4.0}))
    with serving([reply]) as server:
        (found,) = rate(server, logprobs=True)
    weights = {75: 2.718281828**-0.5, 80: 2.718281828**-1.5, 70: 2.718281828**-3.0}
    assert found.value == pytest.approx(sum(v * w for v, w in weights.items()) / sum(weights.values()), abs=1e-6)
    assert server.bodies[0]["logprobs"] is True and server.bodies[0]["top_logprobs"] == 20


def test_digits_that_are_tokens_give_the_number_that_was_written() -> None:
    two = says("75", logprobs=logprobs({"7": -0.1, "8": -2.4}, {"5": -0.2, "0": -1.9}))
    one = says("7", logprobs=logprobs({"7": -0.1, "8": -2.4}))
    with serving([two, one]) as server:
        assert [answer.value for answer in rate(server, [SAMPLE, RaterSample(None, "x")], logprobs=True)] == [75, 7]


def test_a_number_that_the_token_limit_cut_is_no_score() -> None:
    written = says("I would rate it with an 8", finish_reason="length")
    digits = says("It is 1", finish_reason="length", logprobs=logprobs({"is": -0.1}, {"1": -0.1, "2": -3.0}))
    numbers = says("8", finish_reason="length", logprobs=logprobs({"8": -0.5, "85": -0.5}))
    with serving([written]) as server:
        assert rate(server) == [Answer(None, "unparseable_score")]
    with serving([digits, numbers]) as server:
        cut, whole = rate(server, [SAMPLE, RaterSample(None, "x")], logprobs=True)
    assert cut == Answer(None, "unparseable_score") and whole.value == pytest.approx(46.5)


def test_a_short_scale_is_one_token_for_every_tokenizer() -> None:
    question = Question(name="q", text="How?", low=1, high=5)
    with serving([says("4", logprobs=logprobs({"4": -0.7, "5": -0.7, "9": -3.0}))]) as server:
        found = rater(server, logprobs=True).rate([SAMPLE], [question])
    assert found[0][0].value == pytest.approx(4.5)


def test_a_server_without_logprobs_is_told_from_one_with() -> None:
    with serving([says("75")]) as server, pytest.raises(CuveeError, match="write `logprobs: false`"):
        rate(server, logprobs=True)


@pytest.mark.parametrize(
    "given", [[], "none", {"content": []}, {"content": [{"token": "75", "logprob": -0.5, "top_logprobs": []}]}]
)
def test_logprobs_without_rivals_are_none(given: Any) -> None:
    with serving([says("75", logprobs=given)]) as server:
        assert rate(server) == [Answer(75.0)]
        with pytest.raises(CuveeError, match="write `logprobs: false`"):
            rate(server, logprobs=True)


def test_prose_is_no_score_and_labels_are_read() -> None:
    label = Question(name="domain", text="Which?", labels=("food", "sports"))
    with serving([says("a nice dog"), says("Sports.")]) as server:
        found = rater(server).rate([SAMPLE], [QUESTION, label])
    assert found == [[Answer(None, "unparseable_score"), Answer("sports")]]


class TestBudget:
    def test_requests_are_never_more_than_the_budget(self, tmp_path: Path) -> None:
        samples = [RaterSample(None, f"caption {number}") for number in range(30)]
        with serving([says("75")]) as server:
            for budget, sent in ((12, 12), (12, 12), (20, 20), (30, 30)):
                with ledger_in(tmp_path):
                    asking = rater(server, concurrency=4, budget={"requests": budget})
                if budget < 30:
                    with pytest.raises(SpentError, match=f"{budget} of {budget} requests"):
                        asking.rate(samples, [QUESTION])
                else:
                    assert asking.rate(samples, [QUESTION]) == [[Answer(75.0)]] * 30
                assert len(server.bodies) == sent  # raised, it goes on; nothing is asked twice
        captions = [body["messages"][0]["content"][-1]["text"] for body in server.bodies]
        assert len(set(captions)) == 30

    def test_tries_count(self, tmp_path: Path) -> None:
        with serving([status(503)]) as server, pytest.raises(SpentError), ledger_in(tmp_path):
            rate(server, attempts=9, budget={"requests": 4})
        assert len(server.bodies) == 4

    def test_a_killed_worker_is_counted_in_full_and_its_answers_stay(self, tmp_path: Path) -> None:
        samples = [RaterSample(None, f"caption {number}") for number in range(20)]
        code = (
            "import sys; from pathlib import Path; from tests.stages.raters import test_openai_faults as t\n"
            "samples = [t.RaterSample(None, f'caption {number}') for number in range(20)]\n"
            "with t.ledger_in(Path(sys.argv[2])): made = t.rater(sys.argv[1], budget={'requests': 40})\n"
            "made.rate(samples[:10], [t.QUESTION])"
        )
        with serving(lambda number, _: hangs if number == 6 else says("75")) as server:
            worker = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path)], cwd=ROOT)
            server.await_requests(7)
            worker.kill()
            worker.wait()
            assert spent_in(tmp_path).requests >= 7 and spent_in(tmp_path).open
            with ledger_in(tmp_path):
                assert rate(server, samples, budget={"requests": 40}) == [Answer(75.0)] * 20
        captions = [body["messages"][0]["content"][-1]["text"] for body in server.bodies]
        assert len(captions) == 21 and len(set(captions)) == 20  # the one that hung is asked again
        assert 21 <= spent_in(tmp_path).requests <= 40

    def test_money_is_counted_as_the_server_says(self, tmp_path: Path) -> None:
        with serving([says("75", usage=(1000, 10))]) as server, ledger_in(tmp_path):
            rate(server, [SAMPLE, RaterSample(None, "x")], price=PRICE)
        assert spent_in(tmp_path) == Spent(2, 2 * 1_100_000, 2000, 20)

    @pytest.mark.parametrize(
        ("first", "cost_nano"),
        [(status(503), 4_256_000), (breaks_off, 4_256_000), (raw(b"x"), 4_256_000), (status(429), 0)],
    )
    def test_what_may_have_been_billed_counts_in_full(self, first: Action, cost_nano: int, tmp_path: Path) -> None:
        with serving([first, says("75", usage=(1000, 10))]) as server, ledger_in(tmp_path):
            rate(server, price=PRICE)
        assert spent_in(tmp_path).cost_nano == cost_nano + 1_100_000

    def test_a_server_that_counts_no_tokens_is_counted_in_full(self, tmp_path: Path) -> None:
        with serving([says("75", usage=None)]) as server, ledger_in(tmp_path):
            rate(server, price=PRICE)
        assert spent_in(tmp_path) == Spent(1, 4_256_000)

    def test_a_count_that_no_request_has_is_none(self, tmp_path: Path) -> None:
        with serving([says("75", usage=(10**400, 1))]) as server, ledger_in(tmp_path):
            rate(server, price=PRICE)
        assert spent_in(tmp_path) == Spent(1, 4_256_000)

    def test_money_stops_before_the_request_that_could_exceed_it(self, tmp_path: Path) -> None:
        samples = [RaterSample(None, f"caption {number}") for number in range(30)]
        with serving([says("75", usage=(1000, 10))]) as server, ledger_in(tmp_path), pytest.raises(SpentError):
            rate(server, samples, price=PRICE, budget={"cost": 0.01})
        assert len(server.bodies) == 6  # 6 x 0.0011 spent; the next may take 0.004256
        assert spent_in(tmp_path).cost_nano == 6_600_000

    def test_a_request_that_costs_more_than_it_can_stops_the_run(self, tmp_path: Path) -> None:
        samples = [RaterSample(None, f"caption {number}") for number in range(30)]
        refused = pytest.raises(CuveeError, match=r"9000 input.*max_input_tokens.*; 0.0091 is spent")
        with serving([says("75", usage=(9000, 10))]) as server, ledger_in(tmp_path), refused:
            rate(server, samples, price=PRICE, budget={"cost": 1.0})
        assert len(server.bodies) == 1 and spent_in(tmp_path).cost_nano == 9_100_000

    @pytest.mark.parametrize("limits", [{"max_tokens": 2000}, {"max_tokens": None, "max_completion_tokens": 2000}])
    def test_the_limit_that_is_sent_is_what_is_counted_with(self, limits: dict[str, Any], tmp_path: Path) -> None:
        samples = [RaterSample(None, f"caption {number}") for number in range(50)]
        with serving([says("75", usage=(1000, 2000))]) as server, ledger_in(tmp_path), pytest.raises(SpentError):
            rate(server, samples, concurrency=20, price=PRICE, budget={"cost": 0.05}, request=limits)
        assert 0 < spent_in(tmp_path).cost_nano <= 50_000_000

    def test_money_without_a_limit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs a limit of an answer"):
            OpenAI(model="m", price=PRICE, budget={"cost": 1.0}, request={"max_tokens": None})
