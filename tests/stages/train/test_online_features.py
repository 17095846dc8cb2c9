"""Visual tokens computed in the training loop: the bits of cached ones, and images that are read again one by one."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import CuveeError
from stages.train import run as running
from stages.train.comparison import Comparison, Job
from stages.train.decodability import Decodability, decode_missing
from stages.train.image_places import placed
from stages.train.lookahead import Lookahead
from stages.train.online_features import AHEAD, OnlineTokens
from stages.train.sampler import MixtureSampler
from stages.train.samples import read_pairs
from stages.train.settings import TrainSettings
from stages.train.vision_features import VisualTokens
from stages.train.workbench import Workbench

Settings = Callable[..., TrainSettings]
Shard = Callable[..., str]
Picture = Callable[..., bytes]
BROKEN = [("k9000.png", b"no image"), ("k9000.txt", b"a caption"), ("k9001.jpg", b""), ("k9001.txt", b"a caption")]


def opened(
    settings: TrainSettings, arms: dict[str, Any], folder: Path, held_out: pa.Table, parts: int = 1, **more: Any
) -> Workbench:
    for part in range(parts):
        comparison = Comparison(settings, arms, folder, folder / "features", seed=7, **more)
        comparison.read(held_out, part, parts, target=held_out.slice(0, 6) if more else None)
    return Workbench(comparison)


def done(bench: Workbench, job: Job) -> tuple[dict[str, Any], bytes]:
    """The result but for what it says of the disk, and the connector's files."""
    found = bench.do(job)
    found.pop("feature_bytes")
    files = sorted((bench.comparison.folder / "connectors" / job.name).iterdir())
    return found, b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize(
    "changed",
    [{}, {"decode_threads": 0}, {"micro_batch": 3, "batch": 6}, {"precision": "bf16"}, {"share_prefix": True}],
    ids=str,
)
def test_a_connector_is_the_same_bits_cached_and_online(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path, changed: dict[str, Any]
) -> None:
    arms = {"raw": [write_shard("one", range(30), BROKEN), write_shard("two", range(20, 90))]}
    cached = opened(settings(**changed), arms, tmp_path / "cached", held_out)
    online = opened(settings(**changed, features="online"), arms, tmp_path / "online", held_out, parts=2)
    job = Job("raw", 0)
    assert online.fingerprint(job) == cached.fingerprint(job)
    found, connector = done(online, job)
    assert (found, connector) == done(cached, job)
    assert found["unusable"] == {"empty_image": 1, "not_an_image": 1}
    kept = VisualTokens.open(online.comparison.tokens_folder)
    assert len(kept.places) == len(held_out), "nothing but the held-out pairs is kept"
    assert online.frozen.visual.bytes_per_image == 0


def test_tokens_are_the_same_bits_whatever_comes_along(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    arms = {"raw": [write_shard("raw", range(80))]}
    cached = opened(settings(), arms, tmp_path / "cached", held_out)
    online = opened(settings(features="online"), arms, tmp_path / "online", held_out).frozen.visual
    images = [*cached.corpora["raw"].images, *cached.asked.corpus.images]
    assert isinstance(online, OnlineTokens) and all(image in online for image in images)
    expected = cached.frozen.visual.gather(images)
    assert np.array_equal(online.gather(images), expected)
    online.expect(images[:9])
    assert np.array_equal(online.gather([images[3], images[85], images[3]]), expected[[3, 85, 3]])
    online.expect(images[5:12])
    assert np.array_equal(online.read(images[:12])(), expected[:12]), "of some expected, done or forgotten"
    online.expect(())
    assert not online._coming and not online._done
    assert (online.width, online.grid) == (cached.frozen.visual.width, cached.frozen.visual.grid)


def test_a_wrong_guess_that_fails_is_forgotten(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    bench = opened(settings(features="online"), {"raw": [write_shard("raw", range(20))]}, tmp_path, held_out)
    online, images = bench.frozen.visual, bench.corpora["raw"].images
    assert isinstance(online, OnlineTokens)
    expected = online.gather(images[:4])
    moved = {**online.places, images[9]: online.places[images[8]]}
    guessing = OnlineTokens(online.kept, moved, {}, online.tower, threads=2)
    guessing.expect([*images[:4], images[9]])
    assert np.array_equal(guessing.gather(images[:4]), expected), "an image that fails fills no batch"
    with pytest.raises(CuveeError, match=f"not those of image {images[9]}"):
        guessing.read(images[8:10])
    guessing.expect(images[:4])
    assert np.array_equal(guessing.gather(images[:4]), expected)


def test_which_images_decode_is_known_for_any_number_of_workers(picture: Picture, tmp_path: Path) -> None:
    images = [(f"h{n}", picture(n)) for n in range(9)] + [("bad", b"no image"), ("cut", picture(3)[:-20])]
    for parts in (1, 3):
        for part in range(parts):
            decode_missing(tmp_path / str(parts), images, part, parts)
    one, three = (Decodability.open(tmp_path / str(parts)) for parts in (1, 3))
    assert one == three and one.undecodable == {"bad": "not_an_image", "cut": "truncated_image"}
    files = sorted((tmp_path / "1").iterdir())
    decode_missing(tmp_path / "1", [(name, b"never looked at") for name, _ in images])
    assert sorted((tmp_path / "1").iterdir()) == files


@pytest.mark.parametrize("threads", [0, 3])
def test_a_shard_that_changed_is_refused(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path, threads: int
) -> None:
    tar = write_shard("raw", range(20))
    made = settings(features="online", decode_threads=threads)
    bench = opened(made, {"raw": [tar]}, tmp_path / "run", held_out)
    write_shard("raw", range(1, 21))
    with pytest.raises(CuveeError, match=r"step 0: .*raw\.tar.*are not those of image .*changed in the meantime"):
        bench.do(Job("raw", 0))
    Path(tar).unlink()
    with pytest.raises(CuveeError, match=r"raw\.tar cannot be read: .*No such file.*; export it again"):
        bench.frozen.visual.gather(bench.corpora["raw"].images)


def test_images_that_cannot_be_read_alone_are_refused(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.tar.gz"
    plain = Path(write_shard("plain", range(4)))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(CuveeError, match=r"packed\.tar\.gz cannot be read image by image.*`features: cached`"):
        opened(settings(features="online"), {"raw": [str(packed)]}, tmp_path / "a", held_out)
    with pytest.raises(CuveeError, match=r"'k0000' lies in .*plain\.tar, which gives no image by itself"):
        opened(settings(features="online"), {"raw": lambda: read_pairs([str(plain)])}, tmp_path / "b", held_out)


def test_every_image_is_found_again(picture: Picture, write_shard: Shard, tmp_path: Path) -> None:
    odd = [
        ("a/b.c/x.PNG", picture(1)), ("a/b.c/x.txt", b"upper case"), ("y.seg.png", picture(2)), ("y.jpg", picture(3)),
        ("z.webp", picture(4)), ("z.jpg", picture(5)), ("k0001.png", picture(6)),
        ("k0001.txt", b"a key twice"), ("w.txt", b"no image"),
    ]  # fmt: skip
    tars = [write_shard("odd", range(3), odd), write_shard("more", range(2, 4))]
    pairs = list(placed(read_pairs(tars)))
    assert [replace(pair, again=None) for pair in pairs] == list(read_pairs(tars))
    assert [pair.again and pair.again() for pair in pairs] == [pair.image for pair in pairs]
    assert sum(pair.image is not None for pair in pairs) == 9


class Killed(Exception):
    pass


def test_a_run_goes_on_in_its_middle_either_way(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"raw": [write_shard("raw", range(30))]}
    job = Job("raw", 0)
    whole = done(opened(settings(), arms, tmp_path / "whole", held_out), job)
    plain = running.Run._save

    def killed(self: running.Run, checkpoint: Path) -> None:
        plain(self, checkpoint)
        raise Killed

    for number, ways in enumerate((("online", "online"), ("online", "cached"), ("cached", "online"))):
        first, then = (settings(features=way) for way in ways)
        folder = tmp_path / str(number)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(running.Run, "_save", killed)
            opened(first, arms, folder, held_out).do(job)
        assert list((folder / "checkpoints").iterdir())
        assert done(opened(then, arms, folder, held_out), job) == whole


def test_a_schedule_that_turns_weights_changes_nothing(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path
) -> None:
    arms = {"curated": [write_shard("one", range(40))]}
    table = {"exported_key": [f"k{n:04d}" for n in range(40)], "source": ["even", "odd"] * 20}
    pq.write_table(pa.table(table), tmp_path / "members.parquet")
    told = {"schedule": {"kind": "doge", "every": 2, "probe": 4}, "seeds": 1}
    steered = ("curated", str(tmp_path / "members.parquet"))
    cached = opened(settings(**told), arms, tmp_path / "cached", held_out, steered=steered)
    online = opened(settings(**told, features="online"), arms, tmp_path / "online", held_out, steered=steered)
    job = Job("curated", 0)
    found, connector = done(online, job)
    assert (found, connector) == done(cached, job) and len(found["schedule"]["updates"]) == 3


def test_batches_are_foreseen_while_weights_stay() -> None:
    keys = {"a": [f"a{n}" for n in range(5)], "b": [f"b{n}" for n in range(7)]}
    sampler, ahead = MixtureSampler(keys, 4, "seed"), Lookahead(keys, 4, "seed", AHEAD)
    weights = [np.array([0.25, 0.75])] * 5 + [np.array([0.5, 0.5])] * 5
    drawn, foreseen = [], []
    for now in weights:
        drawn.append(sampler.ids(now))
        foreseen.append(ahead.after(drawn[-1], sampler.state, now))
        assert len(foreseen[-1]) == AHEAD
    for step in (*range(3), *range(5, 8)):
        assert foreseen[step] == drawn[step + 1 : step + 1 + AHEAD]
    assert foreseen[3][0] == drawn[4] and foreseen[4][0] != drawn[5], "no guess survives other weights"


def test_a_run_expects_what_it_reads(
    settings: Settings, write_shard: Shard, held_out: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened(settings(features="online"), {"raw": [write_shard("raw", range(60))]}, tmp_path, held_out)
    expected: list[list[str]] = []
    read: list[list[str]] = []
    monkeypatch.setattr(OnlineTokens, "expect", lambda self, images: expected.append(list(images)))
    plain = OnlineTokens.read
    monkeypatch.setattr(OnlineTokens, "read", lambda self, images: read.append(list(images)) or plain(self, images))
    bench.do(Job("raw", 0))
    steps, batch = settings().steps, settings().batch
    assert expected[steps] == [] and all(len(part) == (1 + AHEAD) * batch for part in expected[:steps])
    assert [part[:batch] for part in expected[:steps]] == read[:steps]
    assert [part[batch : 2 * batch] for part in expected[: steps - 1]] == read[1:steps]


def test_settings_say_how_and_not_what(settings: Settings) -> None:
    plain = settings().identity()
    assert settings(features="online", decode_threads=2).identity() == plain
    assert not {"features", "decode_threads"} & set(plain)
    with pytest.raises(ValueError, match="features"):
        settings(features="never")
