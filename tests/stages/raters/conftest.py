"""Pictures and captions to rate."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from stages.raters.backend import RaterSample
from tests.stages.raters.chat_server import ChatServer, chat_server


@pytest.fixture(scope="session")
def samples() -> list[RaterSample]:
    def picture(number: int) -> bytes:
        noise = np.random.Generator(np.random.Philox(number))
        coarse = Image.fromarray(noise.integers(0, 255, (5, 7, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((70, 50)).save(buffer, "PNG")
        return buffer.getvalue()

    captions = [
        "a red circle above a green square",
        "Sonnenuntergang über 3 Bergen, 2019",
        'she said "7"\n<image> </s>',
    ]
    return [RaterSample(picture(number), caption) for number, caption in enumerate(captions)]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """A real chat server, one for all tests."""
    with chat_server(tmp_path_factory.mktemp("chat-server")) as running:
        yield running
