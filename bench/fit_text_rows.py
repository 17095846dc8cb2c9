"""Fits the scorer of `stages/text_regions/row_scorer.py` on rows found in pictures with painted words and without.

    PYTHONPATH=. python bench/fit_text_rows.py PHOTOS.tar... > row_scorer.txt

Learns from the first half of the photos; `bench/detectors.py` measures on the second. A photo may hold text of its own,
which then counts as none: the scorer is a little too strict for that. Prints the numbers as Python.
"""

import argparse
import io
import sys

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

from bench.cases.leaves import leaves
from bench.cases.lettering import lettered
from bench.cases.photos import jpeg, photos
from bench.cases.things import rows_of_things
from stages.text_regions.chains import FEATURES, Chains, chains, features, row_starts
from stages.text_regions.components import letter_like

UNITS = 6
STEPS = 1500
INK = 0.1
"""Share of a row's box that is painted ink from which it counts as text; with less, but some, it counts as neither."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def rows(picture: Image.Image, ink: Mask) -> tuple[Floats, Floats]:
    """(n, features) and (n,) the share of ink in the row's box."""
    found = [chains(letters) for letters in letter_like(np.asarray(picture.convert("L")))]
    found = [each for each in found if len(each.row)]
    if not found:
        return np.zeros((0, len(FEATURES))), np.zeros(0)
    shares = [ink[top:bottom, left:right].mean() for each in found for left, top, right, bottom in hulls(each)]
    return np.concatenate([features(each) for each in found]), np.array(shares)


def hulls(found: Chains) -> list[list[int]]:
    letters, starts = found.letters, row_starts(found.row)
    edges = (
        letters.left[starts],
        np.minimum.reduceat(letters.top, starts),
        np.maximum.reduceat(letters.right, starts),
        np.maximum.reduceat(letters.bottom, starts),
    )
    boxes: list[list[int]] = np.column_stack(edges).astype(int).tolist()
    return boxes


def ground(image: bytes, number: int, rng: np.random.Generator) -> Image.Image:
    """The photo, every fourth one enlarged up to 2.2 times and sharpened again; or, as often, an invented picture."""
    if number % 4 == 3:
        return leaves(rng, int(rng.integers(200, 513)))
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    if number % 4 == 2:
        scale = rng.uniform(1.2, 2.2)
        size = (int(picture.width * scale), int(picture.height * scale))
        sharper = ImageFilter.UnsharpMask(scale, int(rng.uniform(50, 250)), 0)
        return picture.resize(size, Image.Resampling.LANCZOS).filter(sharper)
    return picture


def examples(images: list[bytes]) -> tuple[Floats, Floats, Floats]:
    """Features, truths (0 or 1) and weights of rows: an image weighs the square root of its rows."""
    rng = np.random.Generator(np.random.Philox(5))
    parts = []
    for number, image in enumerate(images * 2):
        picture = ground(image, number, rng)
        if rng.random() < 0.25:
            picture = rows_of_things(picture, rng)
        ink = np.zeros((picture.height, picture.width), np.bool_)
        if rng.random() < 0.5:
            picture, ink = lettered(picture, rng)
        found, share = rows(jpeg(picture, int(rng.integers(60, 96))), ink)
        sure = (share == 0) | (share > INK)
        parts.append((found[sure], (share[sure] > 0).astype(float), np.full(sure.sum(), 1 / max(1, len(share)) ** 0.5)))
    inputs, truths, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    return inputs, truths, weights / weights.mean()


def fit(inputs: Floats, truths: Floats, weights: Floats) -> dict[str, Floats]:
    """Minimise the weighted cross-entropy of `UNITS` tanh units under a sigmoid, full batch."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    x = torch.tensor((inputs - centre) / scale)
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], UNITS), torch.nn.Tanh(), torch.nn.Linear(UNITS, 1)).double()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=1e-4)
    for _ in range(STEPS):
        optimiser.zero_grad()
        logits = net(x)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(truths), torch.tensor(weights))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    hidden, hidden_bias, out, out_bias = (each.detach().numpy() for each in net.parameters())
    print(f"{len(truths)} rows, {int(truths.sum())} of text, cross-entropy {loss.item():.4f}", file=sys.stderr)
    # Standardisation moves into the first layer.
    return {
        "HIDDEN": hidden / scale,
        "HIDDEN_BIAS": hidden_bias - hidden @ (centre / scale),
        "OUT": out[0],
        "OUT_BIAS": out_bias,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", nargs="+")
    found = photos(parser.parse_args().shards)
    learned = fit(*examples(found[: len(found) // 2]))
    for name, values in learned.items():
        print(f"{name} = np.array({np.array2string(values, separator=', ', precision=4, max_line_width=100)})")


if __name__ == "__main__":
    main()
