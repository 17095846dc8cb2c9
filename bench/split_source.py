"""Does a source keep its share when it is cut in two?  python -m bench.split_source [--pairs 2000] [--pools 12]

A mixture world of 16,000 pairs (`pipeline/demo/mixture_world.py`), embedded by the demo's encoder. Pools of `--pairs`,
each with its own target, are drawn from it without replacement; `studio_again` is cut at 0.58 of its rows. Optimal
transport on both embeddings, with and without further k-means partitions of a source's rows.
"""

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import stages.atoms
from pipeline.demo.mixture_world import HARMFUL, REDUNDANT, SOURCES, write_mixture_world
from stages.mixer import Floats, MixtureEvidence, SourceEvidence
from stages.mixture.optimal_transport import OptimalTransport
from stages.train.samples import read_pairs

ENCODER = Path(__file__).resolve().parents[1] / "pipeline" / "demo" / "models" / "encoder"
COLUMNS = ("image_embedding", "text_embedding")
WORLD = 16_000
CUT = 0.58
Columns = dict[str, Floats]


def _rgb(image: bytes | None) -> Image.Image:
    assert image is not None
    return Image.open(io.BytesIO(image)).convert("RGB")


def embedded(model: Any, preprocess: Any, tokenizer: Any, shards: list[str]) -> Columns:
    """Both embeddings of every pair in the shards, (n, d) each."""
    import torch

    images, texts = [], []
    pairs = list(read_pairs(shards))
    with torch.no_grad():
        for start in range(0, len(pairs), 256):
            part = pairs[start : start + 256]
            pixels = [preprocess(_rgb(pair.image)) for pair in part]
            images.append(model.encode_image(torch.stack(pixels), normalize=True).float().numpy())
            texts.append(model.encode_text(tokenizer([pair.caption for pair in part]), normalize=True).float().numpy())
    return dict(zip(COLUMNS, (np.concatenate(images), np.concatenate(texts)), strict=True))


def world(folder: Path) -> dict[str, Columns]:
    """Embeddings by source, and those of the `target`."""
    import open_clip

    write_mixture_world(folder / "corpus", pairs=WORLD)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{ENCODER}")
    tools = model.eval().float(), preprocess, open_clip.get_tokenizer(f"local-dir:{ENCODER}")
    found = {}
    for name in (*(source.name for source in SOURCES), "target"):
        below = folder / "corpus" / ("target" if name == "target" else f"pool/{name}")
        found[name] = embedded(*tools, sorted(map(str, below.glob("*.tar"))))
    return found


def taken(columns: Columns, rows: np.ndarray) -> Columns:
    """Those rows, in order."""
    return {name: values[np.sort(rows)] for name, values in columns.items()}


def evidence(sources: dict[str, Columns], target: Columns, seed: int) -> MixtureEvidence:
    """What a mixer is told."""
    rows = {name: len(next(iter(columns.values()))) for name, columns in sorted(sources.items())}
    told = {
        name: SourceEvidence({**sources[name]}, np.ones(count), [f"{name}-{i:05d}" for i in range(count)])
        for name, count in rows.items()
    }
    natural = {name: count / sum(rows.values()) for name, count in rows.items()}
    return MixtureEvidence(told, {**target}, min(rows.values()), natural, seed)


def drawn(known: dict[str, Columns], pairs: int, seed: int) -> tuple[MixtureEvidence, MixtureEvidence]:
    """One pool whole, and with a source cut in two."""
    rng = np.random.default_rng(seed)
    part = pairs / WORLD
    some = {}
    for name, columns in known.items():
        count = len(columns[COLUMNS[0]])
        some[name] = taken(columns, rng.choice(count, round(part * count), replace=False))
    target, name = some.pop("target"), REDUNDANT[1]
    order = rng.permutation(len(some[name][COLUMNS[0]]))
    halves = np.split(order, [round(CUT * len(order))])
    cut = {f"{name}_{i}": taken(some[name], half) for i, half in enumerate(halves, start=1)}
    others = {source: columns for source, columns in some.items() if source != name}
    return evidence(some, target, seed), evidence({**others, **cut}, target, seed)


def main() -> None:
    """Print one line per number of atoms and of partitions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--pools", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = world(Path(folder))
    for partitions, atoms in ((1, 512), (4, 64), (4, 256), (4, 512)):
        stages.atoms.PARTITIONS = partitions
        mixer = OptimalTransport.model_validate(
            {"column": COLUMNS, "atoms": atoms, "bootstrap": 20, "ranking": False, "max_repeats": None}
        )
        shares, moved, harm = [], [], []
        for seed in range(given.pools):
            whole, cut = (mixer.mix(told).weights for told in drawn(known, given.pairs, seed))
            shares.append(whole["street"])
            moved.append(
                abs(sum(w for n, w in cut.items() if n.startswith("studio")) - sum(whole[n] for n in REDUNDANT))
            )
            harm.append(max(whole[HARMFUL], cut[HARMFUL]))
        print(
            f"{given.pairs} pairs, {atoms} atoms, at most {partitions} partitions: street {np.mean(shares):.3f} +- "
            f"{np.std(shares, ddof=1):.3f}; split moves the studio sources by {np.mean(moved):.4f}, at most "
            f"{np.max(moved):.4f}; harmful at most {np.max(harm):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
