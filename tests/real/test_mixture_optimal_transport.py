"""The mixer on real pools in the space of a really trained encoder: before any rule has narrowed the pool."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xxhash

from stages.mixer import Mixture, MixtureEvidence, SourceEvidence
from stages.mixture.optimal_transport import OptimalTransport
from stages.noise import uniform_noise

SHARED = Path(__file__).resolve().parents[2] / "../shared"
MODEL = SHARED / "models/tiny-dual-encoder"
ROWS = {
    "photos": ("pool/photos/00000.tar", 200),
    "fashion": ("pool/fashion/00000.tar", 200),
    "electronics": ("pool/electronics/00000.tar", 40),
    "emoji": ("pool/emoji/00000.tar", 40),
    "target": ("target/photos/00000.tar", 80),
}
if not MODEL.is_dir() or not all((SHARED / "data" / shard).is_file() for shard, _ in ROWS.values()):
    pytest.skip(f"needs the real pools and encoder in {SHARED}", allow_module_level=True)


def images(shard: Path, count: int) -> dict[str, bytes]:
    """The `count` images with the smallest content hash, twins once: content hash -> bytes."""
    with tarfile.open(shard) as tar:
        members = [member for member in tar if Path(member.name).suffix in {".jpg", ".png"}]
        found = {xxhash.xxh3_128_hexdigest(data): data for data in (tar.extractfile(m).read() for m in members)}
    return dict(sorted(found.items())[:count])


@pytest.fixture(scope="module")
def embedded() -> dict[str, dict[str, np.ndarray]]:
    """Per source: content hash -> unit embedding."""
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{MODEL}")
    model.eval()
    known = {}
    for source, (shard, count) in ROWS.items():
        found = images(SHARED / "data" / shard, count)
        pixels = [preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in found.values()]
        with torch.no_grad():
            vectors = [model.encode_image(part, normalize=True) for part in torch.stack(pixels).split(32)]
        known[source] = dict(zip(found, torch.cat(vectors).numpy().astype(np.float16), strict=True))
    return known


def mixed(sources: dict[str, dict[str, np.ndarray]], target: list[np.ndarray], samples: int) -> Mixture:
    total = sum(len(rows) for rows in sources.values())
    evidence = MixtureEvidence(
        {
            name: SourceEvidence(
                {"image_embedding": np.stack([*rows.values()]).astype(np.float32)}, np.ones(len(rows)), list(rows)
            )
            for name, rows in sorted(sources.items())
        },
        {"image_embedding": np.stack(target).astype(np.float32)},
        samples,
        {name: len(rows) / total for name, rows in sources.items()},
        seed=0,
    )
    return OptimalTransport(bootstrap=40).mix(evidence)


def test_photos_gain_when_photos_are_wanted(embedded):
    pool = {source: embedded[source] for source in ("photos", "fashion", "electronics", "emoji")}
    mixture = mixed(pool, [*embedded["target"].values()], samples=500)
    natural = 200 / 480
    assert mixture.weights["photos"] > natural and mixture.intervals["photos"][0] > natural
    assert mixture.weights["photos"] > 0.9
    assert mixture.objective < 0.6 * min(mixture.references["natural"], mixture.references["uniform"])
    assert min(mixture.evidence["alone"], key=mixture.evidence["alone"].__getitem__) == "photos"
    tight = mixed(pool, [*embedded["target"].values()], samples=1600)
    assert tight.capped["photos"] == pytest.approx(4 * 200 / 1600) and tight.binding[-1] == "max_repeats: photos"


def test_half_fashion_half_photos_comes_back(embedded):
    """The target is made by hash from rows that the pool then does not hold."""
    pool: dict[str, dict[str, np.ndarray]] = {source: embedded[source] for source in ("electronics", "emoji")}
    target: list[np.ndarray] = []
    for source in ("fashion", "photos"):
        keys = list(embedded[source])
        order = np.argsort(uniform_noise(keys, 0, "planted"))
        chosen = {keys[i] for i in order[:80]}
        target += [embedded[source][key] for key in sorted(chosen)]
        pool[source] = {key: row for key, row in embedded[source].items() if key not in chosen}
    mixture = mixed(pool, target, samples=300)
    for source in ("fashion", "photos"):
        low, high = mixture.intervals[source]
        assert mixture.weights[source] == pytest.approx(0.5, abs=0.1), mixture
        assert low < mixture.weights[source] < high
    assert mixture.objective < mixture.references["natural"]
