"""The requests of one batch: a bounded number under way, each paid from a lease, each answer kept once it is there."""

import asyncio
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from schemas.errors import CuveeError
from stages.journal import Journal
from stages.pixels import PixelError
from stages.raters import prompt
from stages.raters.backend import Answer, RaterSample
from stages.raters.data_url import data_url
from stages.raters.openai_call import GOES_ON, Call, Endpoint, RunError, SampleError, Sleep
from stages.raters.openai_reply import REFUSED, Reply, Usage, answer
from stages.raters.rubric import Question
from stages.spending import NANO, Lease, Ledger, Spent

FAILED = "rater_failed"
"""The server gave no usable answer to this sample, while a plain one passed."""
A_FEW = 10
"""Samples of a worker that may fail whatever their share."""


@dataclass(frozen=True)
class Terms:
    """How requests are made and paid; the same for every batch of a worker."""

    endpoint: Endpoint
    journal: Journal
    ledger: Ledger
    cost_nano: Callable[[int, int], int]
    """Of (input, output) tokens."""
    most_nano: int
    """What one request is counted with while its cost is not known."""
    fields: dict[str, Any]
    """Of every request, beside its messages."""
    logprobs: bool
    max_image_bytes: int
    concurrency: int
    max_failed: float
    sleep: Sleep


class Batch:
    """Some samples and the questions about each."""

    def __init__(
        self, terms: Terms, samples: Sequence[RaterSample], questions: Sequence[Question], before: tuple[int, int]
    ) -> None:
        """`before`: how many requests of this worker were answered or failed, and how many failed."""
        self.terms = terms
        self.samples = samples
        self.questions = questions
        self.asked, self.failed = before
        self._found: dict[tuple[int, int], Answer] = {}
        self._urls: dict[int, str | None] = {}
        self._to_go = len(samples) * len(questions)
        self._lease: Lease | None = None
        self._stop: CuveeError | None = None
        self._dear = False

    def answers(self) -> list[list[Answer]]:
        """Per sample, one per question."""
        return [[self._found[row, place] for place in range(len(self.questions))] for row in range(len(self.samples))]

    async def work(self) -> None:
        """Ask everything that is not known already; what is under way when something stops the run is awaited and kept.

        Raises:
            CuveeError: the first fault that stops the run.
        """
        import aiohttp

        self.terms.journal.refresh()
        jobs = product(range(len(self.samples)), range(len(self.questions)))
        connections = aiohttp.TCPConnector(limit=self.terms.concurrency)
        cookies = aiohttp.DummyCookieJar()
        try:
            async with aiohttp.ClientSession(connector=connections, cookie_jar=cookies) as session:
                call = Call(
                    session,
                    self.terms.endpoint,
                    began=self._began,
                    stopped=lambda: self._stop is not None,
                    sleep=self.terms.sleep,
                )
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.terms.concurrency, self._to_go)):
                        group.create_task(self._go_through(jobs, call))
        finally:
            if self._lease is not None:
                self._lease.give_back()
        if self._stop is not None and self._dear:
            raise RunError(f"{self._stop}; {self.terms.ledger.spent().cost_nano / NANO:.6g} is spent")
        if self._stop is not None:
            raise self._stop

    async def _go_through(self, jobs: Iterator[tuple[int, int]], call: Call) -> None:
        for row, place in jobs:  # shared by all: each takes the next one when it is free
            try:
                self._found[row, place] = await self._answer(self._body(row, place), self.questions[place], call)
            except PixelError as error:
                self._found[row, place] = Answer(None, error.reason)
            except CuveeError as error:
                self._stop = self._stop or error
            if self._stop is not None:
                return
            self._to_go -= 1

    def _body(self, row: int, place: int) -> dict[str, Any]:
        sample = self.samples[row]
        if row not in self._urls:
            self._urls[row] = None if sample.image is None else data_url(sample.image, self.terms.max_image_bytes)
        last = place == len(self.questions) - 1
        url = self._urls.pop(row) if last else self._urls[row]
        return self._request(url, sample.caption, self.questions[place])

    def _request(self, url: str | None, caption: str, question: Question) -> dict[str, Any]:
        asked: list[dict[str, Any]] = [] if url is None else [{"type": "image_url", "image_url": {"url": url}}]
        asked.append({"type": "text", "text": prompt.prompt(caption, question)})
        return {**self.terms.fields, "messages": [{"role": "user", "content": asked}]}

    async def _answer(self, body: dict[str, Any], question: Question, call: Call) -> Answer:
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
        if (known := self.terms.journal.known.get(key)) is not None:
            return Answer(*known)
        self.asked += 1
        try:
            given = answer(self._complete(await call.ask(body)), question)
        except SampleError as error:
            given = await self._blamed(error, body, question, call)
        self.terms.journal.add(key, [given.value, given.reason])
        return given

    def _complete(self, reply: Reply) -> Reply:
        if self.terms.logprobs and not _rivalled(reply) and not reply.refused:
            raise RunError(
                f"{self.terms.endpoint.url}: it answered without log-probabilities; write `logprobs: false` for a "
                "server that gives none: the score is then the number it writes"
            )
        return reply

    async def _blamed(self, error: SampleError, body: dict[str, Any], question: Question, call: Call) -> Answer:
        """Whose fault it was: where a plain sample passes, this one's, unless it was an outage that is over.

        Raises:
            RunError: the plain one fails as well, or too many samples fail.
        """
        self.failed += 1
        if self._stop is not None:
            raise self._stop
        if self.failed > max(A_FEW, self.terms.max_failed * self.asked):
            raise RunError(
                f"{error}; that makes {self.failed} of {self.asked} requests, more than `max_failed` allows; {GOES_ON}"
            )
        plain = self._request(data_url(plain_image(), self.terms.max_image_bytes), "A grey square.", question)
        try:
            await call.ask(plain)
        except SampleError:
            raise RunError(f"{error}; a plain sample fails as well; {GOES_ON}") from None
        if error.client:
            return Answer(None, REFUSED)
        try:
            given = answer(self._complete(await call.ask(body)), question)
        except SampleError as again:
            return Answer(None, REFUSED if again.client else FAILED)
        self.failed -= 1
        return given

    def _began(self) -> Callable[[Usage | None, bool], None]:
        """Take one request from the lease, or from a new one; returns what is called when it is over."""
        if self._lease is None or not self._lease.left:
            wanted = max(1, self._to_go)
            self._lease = self.terms.ledger.lease(wanted, self.terms.concurrency, self.terms.most_nano)
        lease = self._lease
        lease.draw()

        def ended(usage: Usage | None, maybe_billed: bool) -> None:
            lease.settle(self._spent(usage, maybe_billed))

        return ended

    def _spent(self, usage: Usage | None, maybe_billed: bool) -> Spent:
        if not maybe_billed:
            return Spent(1)
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return Spent(1, self.terms.most_nano)
        cost = self.terms.cost_nano(usage.input_tokens, usage.output_tokens)
        if cost > self.terms.most_nano and self.terms.ledger.budget.cost is not None:
            self._dear = True
            self._stop = self._stop or RunError(
                f"{self.terms.endpoint.url}: a request of {usage.input_tokens} input and {usage.output_tokens} output "
                f"tokens cost {cost / NANO:.6g}, more than the {self.terms.most_nano / NANO:.6g} that the budget "
                f"counts with; raise `max_input_tokens`, then {GOES_ON} (another `max_answer_tokens` begins anew)"
            )
        return Spent(1, cost, usage.input_tokens, usage.output_tokens)


def _rivalled(reply: Reply) -> bool:
    """Whether it has what an expectation is made of; a text of no tokens has nothing to have it for."""
    return reply.tokens is not None and (not reply.text or any(len(rivals) > 1 for rivals in reply.tokens))


@cache
def plain_image() -> bytes:
    """A sound image that no server has a reason to refuse."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "JPEG")
    return file.getvalue()
