"""A chat endpoint on loopback that misbehaves as told: one action per request, in the order in which they come."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Action = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "FakeServer"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.take(self.path, dict(self.headers), body)(self)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, actions: Callable[[int, dict[str, Any]], Action]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.actions = actions
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        self.busy = self.most_busy = 0
        self._lock = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def take(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Action:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            action = self.actions(len(self.bodies) - 1, body)
            self._lock.notify_all()

        def act(handler: Handler) -> None:
            try:
                action(handler)
            finally:
                with self._lock:
                    self.busy -= 1

        return act

    def await_requests(self, number: int) -> None:
        """Until so many have come."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.bodies) >= number, timeout=60)

    def handle_error(self, *_: object) -> None:
        pass  # clients that give up are what it is for


@contextmanager
def serving(actions: Callable[[int, dict[str, Any]], Action] | list[Action]) -> Iterator[FakeServer]:
    """A running server; a list's last action is repeated."""
    if isinstance(actions, list):
        listed = actions
        server = FakeServer(lambda number, _: listed[min(number, len(listed) - 1)])
    else:
        server = FakeServer(actions)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def completion(text: str | None, usage: tuple[int, int] | None = (100, 2), **choice: Any) -> dict[str, Any]:
    """A sound response around a text."""
    document: dict[str, Any] = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
    }
    if usage is not None:
        document["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return document


def says(text: str | None, usage: tuple[int, int] | None = (100, 2), **choice: Any) -> Action:
    return lambda handler: handler.send(200, json.dumps(completion(text, usage, **choice)).encode())


def raw(content: bytes) -> Action:
    return lambda handler: handler.send(200, content)


def status(code: int, said: str = "no", **headers: str) -> Action:
    content = json.dumps({"error": {"message": said}}).encode()
    return lambda handler: handler.send(code, content, **headers)


def hangs(handler: Handler) -> None:
    handler.server.over.wait(30)


def breaks_off(handler: Handler) -> None:
    """Half a body, then the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(2)


def logprobs(*positions: dict[str, float]) -> dict[str, Any]:
    """Per token: the chosen one first, with its rivals."""
    return {
        "content": [
            {
                "token": next(iter(rivals)),
                "logprob": next(iter(rivals.values())),
                "top_logprobs": [{"token": token, "logprob": value} for token, value in rivals.items()],
            }
            for rivals in positions
        ]
    }
