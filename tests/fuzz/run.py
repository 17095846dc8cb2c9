"""Fuzzes for some minutes with new examples; the smallest bytes that break a property are left in tests/fuzz/corpus.

python -m tests.fuzz.run --minutes 10
"""

import argparse
import gzip
import hashlib
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import broken_images, broken_tars, edited
from tests.fuzz.properties import check_image, check_tar

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = 500
"""Of one property before the next has its turn."""


def broken_by(strategy: st.SearchStrategy[bytes], check: Callable[[bytes], None]) -> tuple[bytes, str] | None:
    """The smallest example found that fails the check, and how; None when all of them pass."""
    last = [b""]
    quiet = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))

    @quiet
    @given(content=strategy)
    def attempt(content: bytes) -> None:
        last[0] = content
        check(content)

    try:
        attempt()
    except Exception:  # any failure at all is what is looked for
        return last[0], traceback.format_exc(limit=-8)
    return None


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    stop = time.monotonic() + 60 * options.parse_args().minutes
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="cuvee-fuzz-") as folder:
        tried, found = fuzz(Path(folder) / "shard.tar", stop)
    print(f"{tried} examples, {found} failures")
    raise SystemExit(found > 0)


def fuzz(place: Path, stop: float) -> tuple[int, int]:
    """Examples tried and failures found until the clock says `stop`; tars are written to `place`."""
    packed = broken_tars().map(lambda content: gzip.compress(content, 1, mtime=0)).flatmap(edited)
    properties = (
        ("tar", broken_tars(), lambda content: check_tar(content, place)),
        ("tar", packed, lambda content: check_tar(content, place)),
        ("image", broken_images(), check_image),
    )
    tried = found = 0
    while time.monotonic() < stop:
        for kind, strategy, check in properties:
            tried += EXAMPLES
            if (broken := broken_by(strategy, check)) is not None:
                found += 1
                keep(kind, *broken)
    return tried, found


def keep(kind: str, content: bytes, story: str) -> None:
    """Leave the bytes in the corpus."""
    path = CORPUS / f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    print(f"{path} ({len(content)} bytes):\n{story}", flush=True)


if __name__ == "__main__":
    main()
