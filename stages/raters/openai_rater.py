"""Ratings from any OpenAI-compatible chat endpoint: hosted ones, vLLM's or SGLang's server, `transformers serve`.

A server is no function: two answers to one request may differ, and nobody sees which weights it runs. So the scores'
address holds what is asked for, the model's name and `revision`, and not where: two servers that offer one name are
taken to be one. What has been answered stands in sidecars and is not asked again.
"""

import asyncio
import os
import re
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from schemas.errors import RecipeError
from stages.journal import Journal
from stages.raters import prompt
from stages.raters.backend import Answer, BackendSettings, Rater, RaterSample
from stages.raters.openai_batch import Batch, Terms
from stages.raters.openai_call import Endpoint, Sleep
from stages.raters.rubric import Question
from stages.spending import NANO, Budget, Ledger, ledger_folder

OURS = frozenset({"model", "messages", "stream", "n"})
"""What `request` may not set."""
SECRET = re.compile(r"api_?key|authorization|secret|password|(^|_)(token|headers?)$")
"""Names of fields that may hold one."""
RIVALS = 20
"""Likeliest tokens asked for with log-probabilities: the most that servers give."""


class Price(BaseModel):
    """What tokens cost, in any unit of money."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_per_1m: float = Field(ge=0)
    output_per_1m: float = Field(ge=0)

    def nano(self, input_tokens: int, output_tokens: int) -> int:
        """Billionths of the unit, rounded up."""
        cost = (input_tokens * self.input_per_1m + output_tokens * self.output_per_1m) * (NANO // 1_000_000)
        return -int(-cost // 1)


class OpenAI(BackendSettings):
    """An endpoint that speaks the protocol of OpenAI's chat completions."""

    kind: Literal["openai"] = "openai"
    base_url: str = "https://api.openai.com/v1"
    """Without /chat/completions."""
    model: str
    """Its name on that server."""
    revision: str = ""
    """Any word: change it when other weights are served under the same name, and scores are asked for anew."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the key, on every node; null: the server wants none."""
    logprobs: bool = True
    """Ask for log-probabilities, and score by expectation; false: take the number that is generated."""
    max_answer_tokens: int = Field(default=16, gt=0)
    max_image_bytes: int = Field(default=20 << 20, gt=0)
    request: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request; null takes out one that is there, e.g. {max_tokens: null}."""
    concurrency: int = Field(default=8, gt=0)
    """Requests that one worker has under way; a run has a worker per core."""
    attempts: int = Field(default=6, gt=0)
    timeout_seconds: float = Field(default=120.0, gt=0)
    price: Price | None = None
    budget: Budget | None = None
    max_input_tokens: int = Field(default=4096, gt=0)
    """The most that a prompt with its image can take: what a request under way is counted with."""
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """The share of a worker's requests that may fail for their sample's sake, beyond the first few."""

    @model_validator(mode="after")
    def _priced(self) -> "OpenAI":
        if self.budget is not None and self.budget.cost is not None and self.price is None:
            raise ValueError("a budget in money needs `price: {input_per_1m: ..., output_per_1m: ...}`")
        if self.budget is not None and self.budget.cost is not None and not _limits(self):
            raise ValueError(
                "a budget in money needs a limit of an answer; `request` takes out `max_tokens` and sets none"
            )
        if taken := sorted(OURS & set(self.request)):
            raise ValueError(f"`request` sets {taken[0]!r}, which is not for settings")
        return self

    @field_validator(
        *(
            "base_url",
            "model",
            "revision",
            "api_key_env",
            "logprobs",
            "max_answer_tokens",
            "max_image_bytes",
            "request",
        ),
        *("concurrency", "attempts", "timeout_seconds", "price", "budget", "max_input_tokens", "max_failed"),
        mode="wrap",
    )
    @classmethod
    def _unrepeated(cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """A value that does not fit may be a key in the wrong place: say what kind of thing it is, and no more."""
        try:
            return validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            if isinstance(problem["input"], dict) or problem["type"] == "extra_forbidden":
                raise
            place = ".".join(map(str, (info.field_name, *problem["loc"])))
            raise RecipeError(f"`{place}`: {problem['msg']}, found a {type(problem['input']).__name__}") from None

    def model_post_init(self, _: Any) -> None:
        """Refuse what may hold a secret, without repeating it as pydantic's own errors do."""
        if re.search("[@;?#]", self.base_url):
            raise RecipeError("`base_url` holds more than host, port and path; keys come from `api_key_env`")
        try:
            parts = urlsplit(self.base_url)
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of a port that is no number, too
            sound = False
        if not sound:
            raise RecipeError("`base_url` is no http or https address; expected e.g. http://localhost:8000/v1")
        if secret := next((name for name in _names(self.request) if _may_hold_secret(name)), None):
            raise RecipeError(f"`request` sets {secret!r}, which may hold a secret; keys come from `api_key_env`")
        if self.api_key_env is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise RecipeError(
                "`api_key_env` is not the name of a variable in capitals; if it is the key itself, take it out of the "
                "recipe, put it into the environment and name the variable"
            )

    def identity(self) -> dict[str, object]:
        """What answers depend on: model by name, prompt, and how it is asked; not the server, prices or patience."""
        own = {"model", "revision", "logprobs", "max_answer_tokens", "max_image_bytes", "request"}
        return {"kind": self.kind, "prompt": prompt.VERSION, **self.model_dump(mode="json", include=own)}

    def check(self) -> None:
        """Refuse to start without the key.

        Raises:
            RecipeError: the variable is not set.
        """
        self._key()

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env, "").strip()):
            raise RecipeError(
                f"the environment variable {self.api_key_env} is not set; set it here and on every node of the "
                "cluster, or write `api_key_env: null` for a server that wants no key"
            )
        return key

    def open(self) -> Rater:
        """Connects with the first request; the key is read now."""
        url = self.base_url.rstrip("/") + "/chat/completions"
        return OpenAIRater(self, Endpoint(url, self._key(), self.attempts, self.timeout_seconds))


class OpenAIRater:
    """One question about one sample per request; those about a sample follow each other, for the server's cache."""

    def __init__(self, settings: OpenAI, endpoint: Endpoint, sleep: Sleep = asyncio.sleep) -> None:
        """`sleep` is what waits between tries."""
        price = settings.price
        self.ledger = Ledger(settings.budget, ledger_folder())
        self.terms = Terms(
            endpoint=endpoint,
            journal=Journal(ledger_folder()),
            ledger=self.ledger,
            cost_nano=price.nano if price else lambda *_: 0,
            most_nano=price.nano(settings.max_input_tokens, max(_limits(settings), default=settings.max_answer_tokens))
            if price
            else 0,
            fields=_fields(settings),
            logprobs=settings.logprobs,
            max_image_bytes=settings.max_image_bytes,
            concurrency=settings.concurrency,
            max_failed=settings.max_failed,
            sleep=sleep,
        )
        self.asked = self.failed = 0

    def rate(self, samples: Sequence[RaterSample], questions: Sequence[Question]) -> list[list[Answer]]:
        """Per sample, one answer per question, in both orders given.

        Raises:
            RunError: the server, the key, the budget; what was answered so far is in the journal.
        """
        batch = Batch(self.terms, samples, questions, (self.asked, self.failed))
        try:
            _run(batch.work())
        finally:
            self.asked, self.failed = batch.asked, batch.failed
        return batch.answers()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`; in a thread of its own where this one runs a loop already, as in a notebook or an async actor."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def noted() -> None:
        begun.append((asyncio.get_running_loop(), asyncio.ensure_future(work)))
        await begun[0][1]

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, noted())
        try:
            done.result()
        except KeyboardInterrupt:  # else the thread would go on asking, and paying, to the end of the batch
            for loop, task in begun:
                loop.call_soon_threadsafe(task.cancel)
            raise


def _names(value: Any) -> Iterator[str]:
    """Of all fields, at any depth."""
    if isinstance(value, dict):
        yield from map(str, value)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(part)


def _may_hold_secret(name: str) -> bool:
    words = re.sub("(?<=[a-z])(?=[A-Z])|[-. ]", "_", name)
    return SECRET.search(words.casefold()) is not None


def _limits(settings: OpenAI) -> list[int]:
    """Every limit of an answer's tokens that goes with a request, whichever the server heeds."""
    found = (_fields(settings).get(name) for name in ("max_tokens", "max_completion_tokens"))
    return [limit for limit in found if isinstance(limit, int)]


def _fields(settings: OpenAI) -> dict[str, Any]:
    """Of every request, beside its messages."""
    own: dict[str, Any] = {"temperature": 0, "seed": 0, "max_tokens": settings.max_answer_tokens}
    if settings.logprobs:
        own |= {"logprobs": True, "top_logprobs": RIVALS}
    fields = {"model": settings.model, **own, **settings.request}
    return {name: value for name, value in fields.items() if value is not None}
