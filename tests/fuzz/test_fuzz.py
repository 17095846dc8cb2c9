"""Any bytes at all: a fixed set of examples here, new ones for as long as you like with `make fuzz`."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import broken_images, broken_tars, edited, tars
from tests.fuzz.properties import check_image, check_survivors, check_tar

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
bounded = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "shard.tar"


@bounded
@given(content=broken_tars())
def test_any_tar_is_accounted_for(content: bytes, place: Path) -> None:
    check_tar(content, place)


@bounded
@given(content=broken_tars().map(lambda content: gzip.compress(content, 1, mtime=0)).flatmap(edited))
def test_any_compressed_tar_is_accounted_for(content: bytes, place: Path) -> None:
    check_tar(content, place)


@bounded
@given(
    pair=st.sampled_from(sorted(tars())).flatmap(lambda name: st.tuples(st.just(tars()[name]), edited(tars()[name])))
)
def test_what_is_whole_before_the_damage_is_kept(pair: tuple[bytes, bytes], place: Path) -> None:
    check_survivors(*pair, place)


@bounded
@given(content=broken_images())
def test_any_image_gives_a_value_or_a_reason(content: bytes) -> None:
    check_image(content)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*")), ids=lambda path: path.name)
def test_what_broke_something_once(path: Path, place: Path) -> None:
    content = path.read_bytes()
    assert len(content) < 4096
    if path.name.startswith("tar"):
        check_tar(content, place)
    else:
        check_image(content)
