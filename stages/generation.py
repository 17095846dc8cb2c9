"""What a stage asks of a language model that the engine runs for it, on GPUs of the cluster, many requests at a time.

Such a stage is scored in two steps. First its scorer runs with `asking`: whatever it would ask is written down. The
engine has all requests answered, then the same scorer runs on the same rows with `answering`: the replies come back in
the order of the questions. So a stage is written as if it had the model at hand, and imports no Ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError, RecipeError


class Generation(BaseModel):
    """The model and how it runs, as plain values for the engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """A folder that every node sees, or a hub name."""
    engine: dict[str, Any]
    """Arguments of the inference engine."""
    sampling: dict[str, Any]
    """Of every request."""
    gpus_per_replica: int
    replicas: int
    batch_size: int
    max_failed: float = 1.0
    """The share of requests that may fail, beyond the first few; more stop the run."""
    content_format: str
    """How the model's chat template takes content: `openai` (a list of parts) or `string`."""


@dataclass
class Transcript:
    """What is asked in one slice, in order, and what comes back."""

    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    """Chat messages."""
    replies: list[dict[str, Any]] | None = None
    """One per request, as JSON values; None while asking."""
    given: int = 0

    def ask(self, messages: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The reply to a request; None where it is only noted.

        Raises:
            ContractError: more is asked now than the first time.
        """
        if self.replies is None:
            self.requests.append(messages)
            return None
        if self.given == len(self.replies):
            raise ContractError(f"{self.given} replies came back and one more is asked for; was a request lost?")
        self.given += 1
        return self.replies[self.given - 1]


_transcript: ContextVar[Transcript | None] = ContextVar("transcript", default=None)


@contextmanager
def asking() -> Iterator[Transcript]:
    """Note what is asked inside the block; every answer is a stand-in."""
    with _during(Transcript()) as noted:
        yield noted


@contextmanager
def answering(replies: list[dict[str, Any]]) -> Iterator[Transcript]:
    """Give these replies inside the block.

    Raises:
        ContractError: not all of them were asked for.
    """
    with _during(Transcript(replies=replies)) as told:
        yield told
        if told.given != len(replies):
            raise ContractError(f"{len(replies)} replies came back and {told.given} were asked for")


def transcript() -> Transcript:
    """Of the slice that is being scored.

    Raises:
        RecipeError: outside of the engine there is none.
    """
    found = _transcript.get()
    if found is None:
        raise RecipeError("a `vllm` backend works inside a run on a cluster with GPUs; use `transformers` elsewhere")
    return found


@contextmanager
def _during(transcript: Transcript) -> Iterator[Transcript]:
    token = _transcript.set(transcript)
    try:
        yield transcript
    finally:
        _transcript.reset(token)
