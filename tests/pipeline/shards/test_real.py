"""Real shards: everything is read, counts are those of the data's own description and of independent readers."""

import tarfile
from pathlib import Path

import pytest
from blake3 import blake3

from pipeline.shards import Container, containers, read_images, read_members
from schemas.recipe import Source

DATA = Path(__file__).resolve().parents[3] / "../shared/data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the repository (../shared/data)")


@pytest.mark.parametrize(
    ("pattern", "samples"),
    [
        ("pool/photos/*.tar", 1500),
        ("pool/fashion/*.tar", 6000),
        ("pool/electronics/*.tar", 450),
        ("pool/emoji/*.tar", 350),
        ("target/photos/*.tar", 500),
        ("judgements/photos/*.tar", 300),
        ("golden/*.tar", 32),
    ],
)
def test_every_sample_is_read(kit, pattern, samples):
    found = [kit.scan(one) for one in containers(Source(source="s", shards=str(DATA / pattern)))]
    keys = [key for one in found for key in one.keys]
    assert len(keys) == samples
    assert {reason for one in found for reason in one.reasons} == {None}
    assert len(set(keys)) == samples


@pytest.mark.parametrize("shard", ["golden/cc12m-32.tar", "pool/emoji/00000.tar"])
def test_members_are_those_tarfile_reads(kit, shard):
    container = Container(str(DATA / shard), "tar")
    found = kit.scan(container, slice_rows=10)
    with tarfile.open(container.path) as tar:
        theirs = [(one.name, one.offset_data, tar.extractfile(one).read()) for one in tar if one.isreg()]
    ours = [member for members in found.index["members"].to_pylist() for member in members]
    assert [(one["name"], one["offset"], one["size"]) for one in ours] == [
        (name, offset, len(data)) for name, offset, data in theirs
    ]
    read = [data for members in read_members(container, found.index) for _, data in members]
    assert read == [data for _, _, data in theirs]
    assert read_images(container, found.index).to_pylist() == found.images
    assert found.scan.digest == blake3(Path(container.path).read_bytes()).hexdigest()


def test_samples_are_those_webdataset_reads(kit):
    webdataset = pytest.importorskip("webdataset")
    container = Container(str(DATA / "golden/cc12m-32.tar"), "tar")
    found = kit.scan(container)
    theirs = list(webdataset.WebDataset(container.path, shardshuffle=False, empty_check=False))
    assert found.keys == [one["__key__"] for one in theirs]
    assert found.images == [one["jpg"] for one in theirs]
    assert found.index["caption"].to_pylist() == [one["txt"].decode() for one in theirs]
