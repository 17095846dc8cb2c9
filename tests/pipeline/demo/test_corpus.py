import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.demo.corpus import write_corpus
from pipeline.demo.plants import BOILERPLATE, CORRUPT, EXACT, MISMATCHED, NEAR, NONE, OFF_DOMAIN
from schemas.errors import CuveeError


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(folder: Path) -> dict[tuple[str, str], dict[str, bytes]]:
    """(source, key) -> suffix -> bytes of every sample; the target's source is `target`."""
    samples: dict[tuple[str, str], dict[str, bytes]] = {}
    for path in [*sorted((folder / "pool").glob("*/*.tar")), *sorted((folder / "target").glob("*.tar"))]:
        with tarfile.open(path) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                samples.setdefault((path.parent.name, key), {})[suffix] = tar.extractfile(member).read()
    return samples


def image_of(sample: dict[str, bytes]) -> bytes:
    return next(data for suffix, data in sample.items() if suffix in ("jpg", "png", "webp"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The corpus as `cuvee demo` writes it."""
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    truth = pl.read_parquet(write_corpus(folder))
    return folder, truth, read(folder)


@pytest.fixture(scope="module")
def hashes(corpus):
    """(source, key) -> the 64 bits of the perceptual hash (32 x 32 grey, DCT-II, 8 x 8 against their median)."""
    from scipy.fft import dctn

    found = {}
    for name, sample in corpus[2].items():
        try:
            image = Image.open(io.BytesIO(image_of(sample))).convert("L")
        except OSError:
            continue
        low = dctn(np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS), float))[:8, :8]
        found[name] = (low > np.median(low)).ravel()
    return found


def test_the_same_settings_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_corpus(tmp_path / name, pairs=200, seed=3)
    first = digests(tmp_path / "one")
    assert len(first) == 7 and first == digests(tmp_path / "two")
    write_corpus(tmp_path / "three", pairs=200, seed=4)
    assert not set(digests(tmp_path / "three").values()) & {v for k, v in first.items() if k.endswith(".tar")}


def test_a_finished_corpus_is_left_alone_and_another_refused(tmp_path):
    truth = write_corpus(tmp_path / "c", pairs=200)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")}
    assert write_corpus(tmp_path / "c", pairs=200) == truth
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")}
    with pytest.raises(CuveeError, match=r"'pairs': 200.*'pairs': 300"):
        write_corpus(tmp_path / "c", pairs=300)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(CuveeError, match="holds no demo corpus"):
        write_corpus(tmp_path / "mine", pairs=200)
    with pytest.raises(CuveeError, match="200 or more"):
        write_corpus(tmp_path / "small", pairs=50)


def test_plants_have_their_shares(corpus):
    folder, truth, samples = corpus
    assert Counter(truth["plant"]) == {
        NONE: 990,
        MISMATCHED: 600,
        BOILERPLATE: 300,
        EXACT: 300,
        NEAR: 150,
        CORRUPT: 60,
        OFF_DOMAIN: 600,
    }
    assert set(truth.filter(plant=OFF_DOMAIN)["source"]) == {"screens"} == set(truth.filter(source="screens")["source"])
    pool = {name for name in samples if name[0] != "target"}
    assert pool == set(truth.select("source", "key").iter_rows()) and len(samples) - len(pool) == 480
    assert not list((folder / "pool").glob("*/*.parquet")) and (folder / "truth.parquet").exists()
    for source, shard, key in truth.select("source", "shard", "key").gather_every(400).iter_rows():
        with tarfile.open(folder / "pool" / source / shard) as tar:
            assert f"{key}.txt" in tar.getnames()


def test_exact_copies_are_byte_identical_and_nothing_else_is(corpus):
    _, truth, samples = corpus
    group = {}
    for source, key, plant, original in truth.select("source", "key", "plant", "duplicate_of").iter_rows():
        group[source, key] = original if plant == EXACT else f"{source}/{key}"
        if plant == EXACT:
            assert samples[source, key] == samples[tuple(original.split("/"))]
    by_bytes: dict[bytes, set[str]] = {}
    for name, sample in samples.items():
        if image_of(sample):
            by_bytes.setdefault(image_of(sample), set()).add(group.get(name, "/".join(name)))
    pages = [found for found in by_bytes.values() if len(found) > 1]
    broken = {f"{source}/{key}" for source, key in truth.filter(plant=CORRUPT).select("source", "key").iter_rows()}
    assert all(found <= broken for found in pages)


def test_corrupt_files_do_not_decode_and_all_others_do(corpus):
    _, truth, samples = corpus
    broken = set(truth.filter(plant=CORRUPT).select("source", "key").iter_rows())
    undecodable = set()
    for name, sample in samples.items():
        try:
            Image.open(io.BytesIO(image_of(sample))).load()
        except OSError:
            undecodable.add(name)
    assert undecodable == broken


def test_near_copies_are_near_and_other_images_are_far(corpus, hashes):
    """Brute force over all pairs of pool and target: no accident within the usual Hamming distance of 4."""
    _, truth, _ = corpus
    copies = truth.filter(pl.col("duplicate_of").is_not_null())
    original = {(s, k): tuple(o.split("/")) for s, k, o in copies.select("source", "key", "duplicate_of").iter_rows()}
    names = list(hashes)
    bits = np.array([hashes[name] for name in names], np.float32)
    distance = bits @ (1 - bits).T
    distance += distance.T
    place = {name: number for number, name in enumerate(names)}
    groups = np.array([place[original.get(name, name)] for name in names])
    assert distance[groups[:, None] != groups[None, :]].min() > 6
    near = [(s, k) for s, k in truth.filter(plant=NEAR).select("source", "key").iter_rows()]
    assert max(distance[place[name], place[original[name]]] for name in near) <= 4


def test_without_plants_all_is_clean(tmp_path):
    folder = tmp_path / "control"
    truth = pl.read_parquet(write_corpus(folder, pairs=200, plants=False))
    assert set(truth["plant"]) == {NONE} and truth["duplicate_of"].null_count() == 200
    samples = read(folder)
    assert len({image_of(sample) for sample in samples.values()}) == len(samples) == 232
    planted = pl.read_parquet(write_corpus(tmp_path / "planted", pairs=200))
    assert planted["source"].value_counts(sort=True).equals(truth["source"].value_counts(sort=True))
