import io

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydantic import ValidationError

from schemas.columns import IMAGE
from stages.duplicates.perceptual_hash import NearDuplicateImages, PerceptualHash
from stages.duplicates.perceptual_hash.luma import LEAST_PX, jpeg_luma
from stages.duplicates.perceptual_hash.rule import first_witnesses
from stages.duplicates.perceptual_hash.stage import grey_pixels, low_frequencies, perceptual_hashes, turned_hashes
from stages.rule import DROPPED_SCHEMA, Context, Verdict
from tests.stages.parts import judged_in_parts

# int(str(imagehash.phash(picture(n))), 16) of ImageHash 4.3.2 for n = 0 .. 7.
IMAGEHASH = [
    12036405782648491403,
    16696606690017528072,
    15197562066470515202,
    16674944248829895432,
    12083728828425112855,
    17079811135739761264,
    17480401754636060172,
    10172849749035020824,
]


def picture(number: int) -> Image.Image:
    noise = np.random.Generator(np.random.Philox(number))
    coarse = Image.fromarray(noise.integers(0, 255, (7, 5, 3), dtype=np.uint8))
    return coarse.resize((61 + number, 83), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)  # type: ignore[arg-type]
    return buffer.getvalue()


def scored(images: list[bytes | None], turned: bool = False) -> pa.RecordBatch:
    batch = pa.record_batch([pa.array(images, pa.large_binary())], pa.schema([IMAGE]))
    return PerceptualHash(turned=turned).open()(batch)


def test_hashes_are_those_of_imagehash() -> None:
    found = scored([encoded(picture(number)) for number in range(8)])
    assert found["phash"].to_pylist() == IMAGEHASH
    assert scored([encoded(picture(3).convert("RGBA"))])["phash"].to_pylist() == IMAGEHASH[3:4]


def test_a_scaled_jpeg_is_close_to_the_whole_one_and_full_is_exact() -> None:
    images = [encoded(picture(number).resize((400, 300)), "JPEG", quality=90) for number in range(8)]
    batch = pa.record_batch([pa.array(images, pa.large_binary())], pa.schema([IMAGE]))
    exact = [int(perceptual_hashes(grey_pixels(Image.open(io.BytesIO(image)))[None])[0]) for image in images]
    assert PerceptualHash(decode="full").open()(batch)["phash"].to_pylist() == exact
    distances = np.bitwise_count(PerceptualHash().open()(batch)["phash"].to_numpy() ^ np.array(exact, np.uint64))
    assert distances.max() <= 4 and distances.mean() < 1


def test_what_is_no_plain_jpeg_is_left_to_the_careful_decoder() -> None:
    plain = encoded(picture(1).resize((200, 180)), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(1), "JPEG", exif=exif)
    others = [
        plain[: len(plain) // 2],
        turned,
        encoded(picture(1).convert("CMYK"), "JPEG"),
        encoded(picture(1)),
        b"",
        b"x",
    ]
    found = jpeg_luma(plain)
    assert found is not None and min(found.shape) >= LEAST_PX and max(found.shape) < 200
    assert [jpeg_luma(other) for other in others] == [None] * len(others)


def test_hashes_follow_the_definition() -> None:
    grey = np.random.Generator(np.random.Philox(1)).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    angle = np.pi * np.outer(np.arange(32), 2 * np.arange(32) + 1) / 64  # DCT-II: 2 sum_n x_n cos(pi k (2n + 1) / 2N)
    basis = 2 * np.cos(angle)
    for image, found in zip(grey, perceptual_hashes(grey), strict=True):
        low = (basis @ image @ basis.T)[:8, :8]
        bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
        assert int(found) == int(bits, 2)


WAYS = (
    lambda image: image,
    ImageOps.mirror,
    ImageOps.flip,
    lambda image: image.rotate(180),
    lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    lambda image: image.rotate(90, expand=True),
    lambda image: image.rotate(270, expand=True),
    lambda image: image.transpose(Image.Transpose.TRANSVERSE),
)


def test_turned_hashes_are_those_of_the_turned_pixels() -> None:
    grey = np.random.Generator(np.random.Philox(2)).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    found = turned_hashes(low_frequencies(grey))
    for image, hashes in zip(grey, found, strict=True):
        turned = np.stack([np.asarray(way(Image.fromarray(image))) for way in WAYS])
        assert set(np.bitwise_count(perceptual_hashes(turned)[:, None] ^ hashes[None, :]).min(axis=1)) == {0}
        assert len(set(hashes.tolist())) == 8


def test_turned_hashes_stand_beside_the_others_where_they_are_asked_for() -> None:
    images = [encoded(picture(number)) for number in range(4)] + [b"no image"]
    plain, more = scored(images), scored(images, turned=True)
    assert more.select(plain.schema.names).equals(plain) and more.schema.names[2] == "phash_turned"
    lists = more["phash_turned"].to_pylist()
    assert [each and each[0] for each in lists] == plain["phash"].to_pylist()
    assert [each and len(each) for each in lists] == [8] * 4 + [None]


def test_turned_hashes_leave_the_address_of_the_others_as_it_was() -> None:
    assert PerceptualHash().identity() == {"decode": "scaled"}
    assert PerceptualHash(turned=True).identity() == {"decode": "scaled", "turned": True}


def test_turned_and_mirrored_copies_are_found_where_that_is_asked_for() -> None:
    images = [encoded(picture(7)), *(encoded(way(picture(7).convert("RGB")), "JPEG", quality=85) for way in WAYS[1:])]
    found = scored([*images, encoded(picture(8))], turned=True)
    rows = pl.DataFrame({"uid": [f"{number:03d}" for number in range(9)], "source": ["s"] * 9})
    rows = rows.with_columns(pl.Series(name, found[name]) for name in ("phash", "phash_turned", "grey_deviation"))
    assert judge(NearDuplicateImages(turned=True), rows)[0] == {f"{number:03d}": "000" for number in range(1, 8)}
    assert judge(NearDuplicateImages(), rows)[0] == {}
    for parts in (1, 2, 7):
        verdict = judged_in_parts(NearDuplicateImages(turned=True), rows, parts)
        assert verdict.dropped.equals(judge(NearDuplicateImages(turned=True), rows)[1].dropped)


def test_copies_stay_close_and_other_images_do_not() -> None:
    original = picture(2).resize((400, 300))
    copies = [encoded(original, "JPEG", quality=60), encoded(original.resize((200, 150)))]
    hashes = scored([encoded(original), *copies, encoded(picture(5))])["phash"].to_numpy()
    distances = np.bitwise_count(hashes ^ hashes[0])
    assert distances[1:3].max() <= 4 < 16 < distances[3]


def test_an_upright_copy_has_the_same_hash() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    lying = picture(4).rotate(90, expand=True)
    hashes = scored([encoded(picture(4)), encoded(lying, exif=exif)])["phash"].to_pylist()
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("told", [' tiff:Orientation="6"/>', "><tiff:Orientation>6</tiff:Orientation></rdf:D>"])
def test_a_jpeg_that_xmp_turns_is_hashed_as_it_is_shown(told: str) -> None:
    lying = picture(4).resize((400, 300))
    xmp = f'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{told}</x:xmpmeta>'.encode()
    hashes = scored([encoded(lying.rotate(-90, expand=True)), encoded(lying, "JPEG", xmp=xmp)])["phash"].to_numpy()
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 4
    assert jpeg_luma(encoded(lying, "JPEG", xmp=xmp.replace(b"Orientation", b"Compression"))) is not None


def test_flat_images_have_no_deviation() -> None:
    found = scored([encoded(Image.new("RGB", (40, 40), (90, 90, 90))), encoded(picture(1))])
    deviations = found["grey_deviation"].to_pylist()
    assert deviations[0] == 0
    assert deviations[1] == pytest.approx(float(grey_pixels(picture(1)).std()), rel=1e-6)


def test_a_broken_image_is_a_null_with_a_reason() -> None:
    whole = encoded(picture(1))
    found = scored([None, b"", b"no image", whole[:-40], whole])
    assert found.schema == PerceptualHash().returns()
    assert found["perceptual_hash_reason"].to_pylist() == [
        "missing_image",
        "empty_image",
        "not_an_image",
        "truncated_image",
        None,
    ]
    for name in ("phash", "grey_deviation"):
        assert [value is None for value in found[name].to_pylist()] == [True] * 4 + [False]
    assert scored([]).num_rows == 0


def brute_witnesses(hashes: np.ndarray, distance: int) -> list[int]:
    witnesses: list[int] = []
    for number, each in enumerate(hashes):
        kept = [at for at in range(number) if witnesses[at] < 0]
        witnesses.append(next((at for at in kept if int(each ^ hashes[at]).bit_count() <= distance), -1))
    return witnesses


NEAR = st.builds(
    lambda base, flips: base ^ sum(1 << bit for bit in flips),
    st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]),
    st.sets(st.integers(0, 63), max_size=7),
)


@given(st.lists(NEAR, max_size=40), st.integers(0, 16))
def test_a_row_is_dropped_iff_a_kept_row_before_it_is_close(values: list[int], distance: int) -> None:
    hashes = np.array(values, np.uint64)
    assert first_witnesses(hashes[:, None], distance)[0].tolist() == brute_witnesses(hashes, distance)


def test_fifty_thousand_hashes_are_decided_as_by_brute_force() -> None:
    distance = 4
    noise = np.random.Generator(np.random.Philox(7))
    hashes = noise.integers(0, 2**64, 50_000, dtype=np.uint64)
    hashes[10_000:12_000] = hashes[0]  # a full bucket
    for copy in range(20_000, 30_000):  # planted at distances 1 to 8
        for bit in noise.choice(64, noise.integers(1, 9), replace=False):
            hashes[copy] = hashes[copy - 15_000] ^ np.uint64(1 << int(bit)) if bit % 2 else hashes[copy]
    noise.shuffle(hashes)
    expected = np.full(len(hashes), -1)
    for row in range(len(hashes)):
        if expected[row] < 0:
            close = np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= distance) + row + 1
            fresh = close[expected[close] < 0]
            expected[fresh] = row
    assert (expected >= 0).sum() > 1_900
    assert (first_witnesses(hashes[:, None], distance)[0] == expected).all()


def table(hashes: list[int | None], scores: list[float | None] | None = None) -> pl.DataFrame:
    n = len(hashes)
    deviations = [None if each is None else 50.0 for each in hashes]
    return pl.DataFrame(
        {
            "uid": [f"{number:03d}" for number in range(n)],
            "source": ["s"] * n,
            "phash": hashes,
            "grey_deviation": deviations,
            "score": scores or [0.0] * n,
        },
        schema_overrides={"phash": pl.UInt64, "grey_deviation": pl.Float32, "score": pl.Float32},
    )


def judge(rule: NearDuplicateImages, rows: pl.DataFrame) -> tuple[dict[str, str], Verdict]:
    verdict = rule.judge(rows.sample(fraction=1, shuffle=True, seed=1).lazy(), Context(0))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    return dict(verdict.dropped.select("uid", "duplicate_of").iter_rows()), verdict


def test_no_chains() -> None:
    # 0 - 15 - 255: neighbours are 4 bits apart, the ends 8. The middle goes for the first, the last stays.
    found, verdict = judge(NearDuplicateImages(), table([0, 0b1111, 0b11111111]))
    assert found == {"001": "000"}
    assert verdict.evidence["distances"] == {"4": 1}
    assert verdict.evidence["largest_groups"] == [{"kept": "000", "dropped": 1, "similarities": {"001": 0.9375}}]


def test_the_preferred_row_survives() -> None:
    rows = table([0, 1, 3], [0.1, 0.9, None])
    assert judge(NearDuplicateImages(prefer="score"), rows)[0] == {"000": "001", "002": "001"}
    assert judge(NearDuplicateImages(), rows)[0] == {"001": "000", "002": "000"}


def test_what_is_compared_may_be_preferred_too() -> None:
    rows = table([0, 1, 3]).with_columns(pl.Series("grey_deviation", [50.0, 60.0, None], pl.Float32))
    assert NearDuplicateImages(prefer="grey_deviation").columns() == ("phash", "grey_deviation")
    assert judge(NearDuplicateImages(prefer="grey_deviation"), rows)[0] == {"000": "001"}


def test_flat_and_unhashed_images_stay() -> None:
    rows = table([7, 7, 7, None, None]).with_columns(
        pl.Series("grey_deviation", [50.0, 1.0, 1.0, None, None], pl.Float32)
    )
    found, verdict = judge(NearDuplicateImages(), rows)
    assert found == {}
    assert (verdict.evidence["flat"], verdict.evidence["unhashed"]) == (2, 2)
    assert judge(NearDuplicateImages(min_deviation=1), rows)[0] == {"001": "000", "002": "000"}
    assert judge(NearDuplicateImages(), table([]))[0] == {}


@pytest.mark.parametrize(
    "settings", [{"max_distance": -1}, {"max_distance": 17}, {"min_deviation": -1}, {"prefer": "key"}]
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NearDuplicateImages.model_validate(settings)
