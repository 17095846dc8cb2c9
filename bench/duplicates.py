"""Turned copies found by hash, pairs found across cluster borders, and the cost of taking rows to their clusters.

    PYTHONPATH=. python -m bench.duplicates turned PHOTOS.tar...
    PYTHONPATH=. python -m bench.duplicates borders --shared SHARED --cache SCRATCH
    PYTHONPATH=. python -m bench.duplicates assign

A turned copy is the photograph turned or mirrored, then JPEG once more. A true pair is one whose cosine, compared with
all others, is above the threshold. `assign` uses a GPU where faiss sees one.
"""

import argparse
import io
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from bench.cases.photos import jpeg_bytes, photos
from bench.judgements import embedded, samples
from stages.alignment.clip.stage import Clip
from stages.clusters import fit_centroids, flat_index, probed_centroids
from stages.duplicates.perceptual_hash.stage import grey_pixels, low_frequencies, turned_hashes
from stages.hamming import close_turned_pairs
from stages.near_vectors.neighbours import Clustering, Compared
from stages.near_vectors.similarity import BLOCK_ROWS
from stages.rule import Context
from stages.vectors import blocks, cosines, vectors

Vectors = npt.NDArray[np.float16]
QUALITY = 85
WAYS = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 90 degrees": Image.Transpose.ROTATE_90,
    "turned by 180 degrees": Image.Transpose.ROTATE_180,
    "turned by 270 degrees": Image.Transpose.ROTATE_270,
    "transposed": Image.Transpose.TRANSPOSE,
    "transversed": Image.Transpose.TRANSVERSE,
}
SOURCES = {"photos": 1000, "fashion": 1000, "electronics": 300, "emoji": 300}


def hashes(images: Sequence[Image.Image]) -> npt.NDArray[np.uint64]:
    """(n, 8)"""
    return turned_hashes(low_frequencies(np.stack([grey_pixels(image) for image in images])))


def turned(shards: list[str]) -> None:
    originals = [Image.open(io.BytesIO(each)).convert("RGB") for each in photos(shards)]
    known, n = hashes(originals), len(originals)
    print(f"{n} photographs, each turned and encoded with quality {QUALITY}")
    found: dict[str, list[float]] = {}
    for name, way in WAYS.items():
        copies = [Image.open(io.BytesIO(jpeg_bytes(each.transpose(way), QUALITY))) for each in originals]
        both = np.concatenate([known, hashes(copies)])
        found[name] = []
        for distance in (4, 8, 10):
            pairs = close_turned_pairs(both, distance)
            found[name].append(float(((pairs.second - pairs.first) == n).sum() / n))
    for name, shares in found.items():
        print(f"| {name} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    wrong = [len(close_turned_pairs(known, distance).first) for distance in (4, 8, 10)]
    upright = [len(close_turned_pairs(known[:, :1], distance).first) for distance in (4, 8, 10)]
    print(f"pairs among the originals within 4, 8, 10 bits: {wrong} with turns, {upright} without")


def close(rows: Vectors, threshold: float) -> set[tuple[int, int]]:
    """All pairs above the threshold, by comparing all with all."""
    pairs: set[tuple[int, int]] = set()
    for later in blocks(len(rows), BLOCK_ROWS):
        second, first = np.nonzero(cosines(rows[later], rows[: later.stop]) > threshold)
        earlier = first < second + later.start
        pairs |= set(zip(first[earlier].tolist(), (second[earlier] + later.start).tolist(), strict=True))
    return pairs


def borders_of(name: str, rows: Vectors, epsilons: tuple[float, ...]) -> None:
    lists = pl.Series(rows.astype(np.float32)).arr.to_list().cast(pl.List(pl.Float16))
    table = pl.DataFrame({"uid": [f"{number:07d}" for number in range(len(rows))], "image_embedding": lists})
    for epsilon in epsilons:
        true = close(rows, 1 - epsilon)
        shares = []
        for probe in (1, 2, 4):
            began = time.process_time()
            made = Clustering(Compared("image_embedding"), None, probe).neighbours(
                table.lazy(), Context(0), None, False
            )
            assert made is not None
            order = np.arange(len(rows))
            first, _, _ = made[0].above(order, np.ones(len(rows), np.bool_), 1 - epsilon)
            shares.append(f"{len(first) / max(len(true), 1):.4f} | {time.process_time() - began:.1f} s")
        print(f"| {name}, {len(rows)} | {epsilon} | {len(true)} | " + " | ".join(shares) + " |")


def synthetic(n: int, d: int, seed: int = 0) -> Vectors:
    """Unit vectors around topics; a fifth are copies of others with noise of several sizes."""
    noise = np.random.Generator(np.random.Philox(seed))
    rows = noise.normal(size=(n, d)) + 2 * noise.normal(size=(n // 200, d))[noise.integers(0, n // 200, n)]
    copies = noise.choice(n, n // 5, replace=False)
    sizes = noise.choice([0.1, 0.3, 0.5, 0.7], len(copies))[:, None]
    rows[copies] = rows[noise.integers(0, n, len(copies))] + sizes * noise.normal(size=(len(copies), d))
    found: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return found


def real(shared: Path, cache: Path) -> Vectors:
    path = cache / "pool_embeddings.npy"
    if not path.exists():
        model = Clip(model=str(shared / "models/tiny-dual-encoder"), device="cpu")
        parts = []
        for source, number in SOURCES.items():
            images, _ = embedded(model, list(islice(samples(shared / "data/pool" / source), number)))
            parts.append(vectors(images))
        np.save(path, np.concatenate(parts))
    found: Vectors = np.load(path)
    return found


def assign(n: int = 20_000, k: int = 1_000, d: int = 512) -> None:
    """CPU seconds to the nearest centroids: an index and exact ranks, against all cosines in float64."""
    import faiss

    rows = synthetic(n, d)
    centroids = fit_centroids(rows, [f"{number:07d}" for number in range(n)], k, 0, "bench")
    seconds: dict[str, list[float]] = {"index": [], "float64": []}
    for _ in range(3):
        began = time.process_time()
        number, _ = probed_centroids(rows, centroids, 1, None if faiss.get_num_gpus() else flat_index(centroids))
        seconds["index"].append(time.process_time() - began)
        began = time.process_time()
        exact = np.concatenate([cosines(rows[block], centroids).argmax(axis=1) for block in blocks(n, BLOCK_ROWS)])
        seconds["float64"].append(time.process_time() - began)
        assert (exact == number[:, 0]).all()
    medians = {name: round(float(np.median(found)), 2) for name, found in seconds.items()}
    print(f"{n} x {d} to {k} centroids, {faiss.get_num_gpus()} GPUs: {medians} s, equal results")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["turned", "borders", "assign"])
    parser.add_argument("shards", nargs="*")
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    if given.what == "turned":
        turned(given.shards)
    elif given.what == "assign":
        assign()
    else:
        borders_of("real pool", real(given.shared, given.cache), (0.05, 0.1))
        borders_of("synthetic, 64-d", synthetic(20_000, 64), (0.05, 0.1))


if __name__ == "__main__":
    main()
