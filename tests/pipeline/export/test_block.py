"""Samples laid out in memory: written from there they are the tar that the standard library makes of them."""

import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export import webdataset
from pipeline.export.block import Block
from pipeline.export.direct import open_direct
from pipeline.export.format import Layout, Sample
from pipeline.export.webdataset import WebDataset, tar_header, tar_headers

FORM = WebDataset(Layout((("jpg", "txt"),), pa.schema([])))
SUFFIXES = st.sampled_from(["jpg", "txt", "json", "cls", "größe", "x" * 80, "x" * 95])
SCORES = st.sampled_from([{}, {}, {"words": 3}])
SAMPLES = st.lists(
    st.builds(
        lambda members, scores: (sorted(members.items()), scores),
        st.dictionaries(SUFFIXES, st.binary(max_size=1100), max_size=3),
        SCORES,
    ),
    max_size=6,
)


def by_the_library(samples: list[Sample]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for sample in samples:
            scores = {"cuvee.json": json.dumps(sample.scores, sort_keys=True).encode()} if sample.scores else {}
            for suffix, content in sorted({**dict(sample.members), **scores}.items()):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size, info.mode = len(content), 0o444
                archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@given(SAMPLES, st.integers(1, 4), st.sampled_from([300, 1 << 18]))
def test_blocks_are_written_as_the_librarys_tar(
    tmp_path_factory: pytest.TempPathFactory,
    facts: list[tuple[list[tuple[str, bytes]], dict[str, int]]],
    together: int,
    piece: int,
) -> None:
    samples = [Sample(f"k{number}", members, scores) for number, (members, scores) in enumerate(facts)]
    blocks = (Block.of(samples[start : start + together]) for start in range(0, len(samples), together))
    path = tmp_path_factory.getbasetemp() / "blocks.tar"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webdataset, "PIECE_BYTES", piece)
        with ThreadPoolExecutor(1) as writer, open_direct(path, writer) as out:
            digest = FORM.write_blocks(path, blocks, len(samples), lambda _: out)
    assert path.read_bytes() == by_the_library(samples)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@given(SAMPLES)
def test_samples_come_out_as_they_went_in(facts: list[tuple[list[tuple[str, bytes]], dict[str, int]]]) -> None:
    samples = [Sample(f"k{number}", members, scores) for number, (members, scores) in enumerate(facts)]
    assert list(Block.of(samples).samples()) == samples


@given(st.lists(st.tuples(st.text(max_size=110), st.integers(0, 8**11)), min_size=1, max_size=5))
def test_headers_of_many_are_the_headers_of_each(members: list[tuple[str, int]]) -> None:
    members = [(name.encode(errors="replace").decode().replace("\0", ""), size) for name, size in members]
    found = tar_headers([name for name, _ in members], np.array([size for _, size in members]))
    expected = [tar_header(name, size) for name, size in members]
    if all(len(header) == 512 for header in expected):
        assert found is not None
        assert [row.tobytes() for row in found] == expected
    else:
        assert found is None
