"""`transformers serve` in a process of its own, on loopback, with a tiny model that is made for it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NEEDS = ("fastapi", "uvicorn", "openai", "accelerate")
START_SECONDS = 180


@dataclass(frozen=True)
class ChatServer:
    """A running server."""

    url: str
    model: str
    folder: Path
    numbers: dict[str, float]
    """`logit_bias` that makes the untrained model answer with one of the integers 11 to 100: no other one begins with
    them, so that an answer of one token is whole."""

    def answered(self) -> int:
        """Completions that it sent so far, by its own log."""
        return (self.folder.parent / "server.log").read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')

    def settings(self, **changed: Any) -> dict[str, Any]:
        """A `backend:` that asks it."""
        return {
            "kind": "openai",
            "base_url": self.url,
            "model": self.model,
            "api_key_env": None,
            "logprobs": False,
            "max_answer_tokens": 1,
            "concurrency": 2,
            "request": {"logit_bias": self.numbers},
            **changed,
        }


@contextmanager
def chat_server(folder: Path) -> Iterator[ChatServer]:
    """The server over a model that is written to `folder`; skips where its packages are missing."""
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"`transformers serve` needs {', '.join(missing)}: install cuvee[dev]")
    from transformers import AutoTokenizer

    _write_model(folder / "tiny")
    words = AutoTokenizer.from_pretrained(folder / "tiny")
    tokens = [words.encode(str(number), add_special_tokens=False) for number in range(11, 101)]
    assert all(len(ids) == 1 for ids in tokens)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu"], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _await(process, f"http://127.0.0.1:{port}/health", folder / "server.log")
        yield ChatServer(
            f"http://127.0.0.1:{port}/v1", "tiny", folder / "tiny", {str(ids[0]): 1000.0 for ids in tokens}
        )
    finally:
        process.terminate()
        process.wait(30)


def _write_model(folder: Path) -> None:
    """A tiny LLaVA whose answers differ by what is asked: with larger weights than training begins with."""
    import torch
    from transformers import AutoModelForImageTextToText

    from tests.stages.raters.tiny_mllm import write_llava

    model = AutoModelForImageTextToText.from_pretrained(write_llava(folder, whole_numbers=True))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and "vision" not in name:
                weights.mul_(50)
    model.save_pretrained(folder)


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer)["status"] == "ok":
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the server did not answer: {log.read_text()[-2000:]}")
