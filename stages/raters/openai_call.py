"""One request to an OpenAI-compatible server, tried again where that may help: with backoff, and as the server asks.

What is wrong with a request is told apart by who has to act: the run stops at once for what no second try mends (a
key, an address, a model's name), and after `attempts` tries for what should have passed (limits, no connection). What
may be the sample's own fault (an image that the server cannot take) is left to the caller to decide.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from schemas.errors import CuveeError
from stages.raters.backoff import LONGEST_WAIT_SECONDS, asked_seconds, wait_seconds
from stages.raters.openai_reply import BrokenReplyError, ErrorReplyError, Reply, Usage, read_reply

if TYPE_CHECKING:
    import aiohttp

Sleep = Callable[[float], Awaitable[None]]
AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501, 505}
"""Statuses after which the same request may pass."""
PERHAPS_THE_SAMPLE = frozenset({400, 413, 415, 422})
HINTS = {
    401: "the server does not take the key; look at the variable that `api_key_env` names",
    402: "the account has no money left",
    403: "the key may not use this model or endpoint",
    404: "no such model or path; `base_url` ends before /chat/completions, most often in /v1",
    407: "the proxy does not take the name and password of the variable that names it, e.g. https_proxy",
    429: "the server's limit is lower than what is asked; lower `concurrency` or wait",
}
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
"""Error codes that come as 429 and do not pass."""
GOES_ON = "run again to go on: what is answered is kept"
MOST_SHOWN = 300
"""Characters of a server's message that an error shows."""
MOST_BODY_BYTES = 8 << 20
"""A longer answer to a question about one sample is none."""


class RunError(CuveeError):
    """The run cannot go on; said so that the user knows what to do."""


class SampleError(Exception):
    """This request does not pass; it may be its sample's fault or the server's."""

    def __init__(self, message: str, *, client: bool) -> None:
        """`client`: the server says that the request is wrong."""
        super().__init__(message)
        self.client = client


@dataclass(frozen=True)
class Failure:
    """One try that gave no reply."""

    message: str
    again: bool
    stops_run: bool
    maybe_billed: bool
    client: bool = False
    wait_seconds: float | None = None
    """What the server asks for."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go and how patient they are."""

    url: str
    key: str | None
    attempts: int
    timeout_seconds: float

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"  # never the key

    def headers(self) -> dict[str, str]:
        """With the key; not to be shown."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def shown(self, text: str) -> str:
        """A foreign text without the key or a proxy's password, on one line, not too long."""
        whole = re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))
        return (whole.replace(self.key, "***") if self.key else whole)[:MOST_SHOWN]

    def proxy(self) -> str | None:
        """The proxy of the environment for this address, if any."""
        parts = urlsplit(self.url)
        return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


class Call:
    """Sends requests of one session; `began` and `ended` keep the books of what each try may cost."""

    def __init__(
        self,
        session: "aiohttp.ClientSession",
        endpoint: Endpoint,
        *,
        began: Callable[[], Callable[[Usage | None, bool], None]],
        stopped: Callable[[], bool],
        sleep: Sleep,
    ) -> None:
        """`began()` is called before each try and gives what is called after it with usage and whether it may cost.

        Once `stopped()` says so, nothing is tried again.
        """
        self.session = session
        self.endpoint = endpoint
        self.began = began
        self.stopped = stopped
        self.sleep = sleep

    async def ask(self, body: dict[str, Any]) -> Reply:
        """The server's reply.

        Raises:
            RunError: nothing like it will pass.
            SampleError: this one does not pass.
        """
        attempt = 1
        while isinstance(outcome := await self._try(body), Failure):
            if not outcome.again or attempt == self.endpoint.attempts or self.stopped():
                raise self._given_up(outcome, attempt)
            await self.sleep(wait_seconds(attempt, outcome.wait_seconds))
            if self.stopped():
                raise self._given_up(outcome, attempt)
            attempt += 1
        return outcome

    def _given_up(self, failure: Failure, attempts: int) -> Exception:
        text = f"{self.endpoint.url}: {failure.message}" + (f" after {attempts} tries" if attempts > 1 else "")
        return RunError(f"{text}; {GOES_ON}") if failure.stops_run else SampleError(text, client=failure.client)

    async def _try(self, body: dict[str, Any]) -> Reply | Failure:
        ended = self.began()
        usage, billed = None, True
        try:
            outcome = await self._send(body)
            usage = outcome.usage if isinstance(outcome, Reply) else None
            billed = isinstance(outcome, Reply) or outcome.maybe_billed
            return outcome
        finally:
            ended(usage, billed)  # cancelled on its way: it may be billed

    async def _send(self, body: dict[str, Any]) -> Reply | Failure:
        import aiohttp

        try:
            post = self.session.post(
                self.endpoint.url,
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **self.endpoint.headers()},
                timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout_seconds),
                allow_redirects=False,
                proxy=self.endpoint.proxy(),
            )
            async with post as response:
                content = await _body(response)
                wait = response.headers.get("Retry-After")
                try:
                    return (
                        read_reply(content) if response.status == 200 else self._status(response.status, content, wait)
                    )
                except ErrorReplyError as error:
                    return self._status(error.status, content, wait)
        except BrokenReplyError as error:
            return Failure(f"it answered {error}", again=True, stops_run=False, maybe_billed=True)
        except TimeoutError:
            seconds = f"{self.endpoint.timeout_seconds:g}"
            return Failure(f"no answer within {seconds} s", again=True, stops_run=False, maybe_billed=True)
        except aiohttp.ClientHttpProxyError as error:
            return self._status(error.status, error.message.encode(), None)
        except (aiohttp.ClientSSLError, ValueError) as error:  # an address or a key that cannot be sent
            return Failure(self._named(error), again=False, stops_run=True, maybe_billed=False)
        except aiohttp.ClientConnectorError as error:
            return Failure(f"no connection: {self._named(error)}", again=True, stops_run=True, maybe_billed=False)
        except (aiohttp.ClientError, OSError) as error:
            return Failure(f"it broke off: {self._named(error)}", again=True, stops_run=False, maybe_billed=True)

    def _named(self, error: Exception) -> str:
        return self.endpoint.shown(f"{type(error).__name__}: {error}")

    def _status(self, status: int, content: bytes, retry_after: str | None) -> Failure:
        said = content[:2000].decode(errors="replace")
        again = status in AGAIN and not any(code in said for code in NO_MONEY)
        wait = asked_seconds(retry_after) if again else None
        too_long = wait is not None and wait > LONGEST_WAIT_SECONDS
        perhaps = status in PERHAPS_THE_SAMPLE or (status in AGAIN and status != 429)
        hint = f"; {HINTS[status]}" if status in HINTS else ""
        asks = f"; it asks to wait {wait:g} s" if too_long else ""
        return Failure(
            f"status {status}: {self.endpoint.shown(said)!r}{hint}{asks}",
            again=again and not too_long,
            stops_run=not perhaps,
            maybe_billed=status >= 500 or status in (408, 409),
            client=status in PERHAPS_THE_SAMPLE,
            wait_seconds=wait,
        )


async def _body(response: "aiohttp.ClientResponse") -> bytes:
    content = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > MOST_BODY_BYTES:
            raise BrokenReplyError(f"more than {MOST_BODY_BYTES} bytes")
    return bytes(content)
