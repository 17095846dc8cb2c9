import io
import struct

import numpy as np
import pytest
from PIL import Image

from stages.displayable import displayable


def tiff(grey: np.ndarray, order: str) -> bytes:
    """An uncompressed TIFF of 16-bit grey (h, w), the low byte first (<) or the high one (>)."""
    height, width = grey.shape
    data = grey.astype(f"{order}u2").tobytes()
    begin = 8 + 2 + 12 * 9 + 4
    entries = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: begin, 277: 1, 278: height, 279: len(data)}
    head = ({"<": b"II", ">": b"MM"}[order]) + struct.pack(f"{order}HIH", 42, 8, len(entries))
    lines = (struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries.items())
    return head + b"".join(lines) + struct.pack(f"{order}I", 0) + data


@pytest.mark.parametrize(("order", "mode"), [("<", "I;16"), (">", "I;16B")])
def test_16_bit_grey_keeps_its_high_byte_in_either_byte_order(order: str, mode: str) -> None:
    grey = np.random.Generator(np.random.Philox(4)).integers(0, 1 << 16, (40, 30)).astype(np.uint16)
    grey[0, :2] = 0, (1 << 16) - 1
    with Image.open(io.BytesIO(tiff(grey, order))) as picture:
        assert picture.mode == mode
        shown = displayable(picture)
    assert shown.mode == "L" and (np.asarray(shown) == grey >> 8).all()
