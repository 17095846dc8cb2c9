"""Precision, recall and AUC of each image detector on generated cases.

    PYTHONPATH=. python bench/detectors.py PHOTOS.tar... --other products PRODUCTS.tar... --other emoji EMOJI.tar...

Thresholds are chosen on one set of photos and measured on another: of the second half of the photos (the first half
fitted `text_regions`) the odd ones choose, the even ones are measured. So with the others. A set holds as many
positives as the weights make negatives count: precision is that of an even mixture.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.cases import detector_cases as cases
from bench.cases.photos import photos
from bench.cases.screens import screen
from stages.quality.image_detectors import detect

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detector:
    """A column, the side of the threshold that is a find, and its cases."""

    column: str
    finds: str
    threshold: float
    make: Callable[[cases.Material], cases.Cases]

    def found(self, values: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        return values < threshold if self.finds == "below" else values > threshold


BLURRED, TEXT, SCREENSHOT = 200, 0.005, 0.2
DETECTORS = (
    Detector("sharpness", "below", BLURRED, cases.blurred),
    Detector("constant_share", "above", 0.99, cases.blank),
    Detector("entropy_bits", "below", 4.2, cases.few_tones),
    Detector("border_share", "above", 0.03, cases.bordered),
    Detector("text_coverage", "above", TEXT, cases.texted),
    Detector("screenshot_likeness", "above", SCREENSHOT, cases.screens),
    Detector("collage_likeness", "above", 0.7, cases.collages),
)
"""With the thresholds that the README recommends."""


@dataclass(frozen=True)
class Measured:
    """Values of cases, which of them are positives, and how each was made."""

    values: Floats
    truth: npt.NDArray[np.bool_]
    kinds: list[str]

    def rates(self, found: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Precision in an even mixture, and recall."""
        hit, false = float(found[self.truth].mean()), float(found[~self.truth].mean())
        return hit / max(hit + false, 1e-12), hit

    def auc(self, finds: str) -> float:
        """Chance that a positive stands on the finds' side of a negative; ties count half."""
        sign = -1 if finds == "below" else 1
        yes, no = np.sort(sign * self.values[self.truth]), np.sort(sign * self.values[~self.truth])
        less = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")
        return float(less.mean() / 2 / len(no))


def told(images: list[bytes], column: str) -> Floats:
    """What a detector says of every image; NaN where it says nothing."""
    return np.array([getattr(detect(image), column) for image in images], float)


def measure(detector: Detector, given: cases.Material) -> Measured:
    made = list(detector.make(given))
    values = told([case.image for case in made], detector.column)
    return Measured(values, np.array([case.positive for case in made]), [case.kind for case in made])


def best_threshold(detector: Detector, measured: Measured) -> float:
    """The one with the highest F1, halfway between two values."""
    values = np.unique(measured.values)
    middles = (values[1:] + values[:-1]) / 2

    def f1(threshold: float) -> float:
        precision, recall = measured.rates(detector.found(measured.values, threshold))
        return 2 * precision * recall / max(precision + recall, 1e-12)

    return float(max(middles.tolist(), key=f1))


def report(detector: Detector, choosing: Measured, measuring: Measured) -> None:
    found = detector.found(measuring.values, detector.threshold)
    precision, recall = measuring.rates(found)
    sizes = f"{int(measuring.truth.sum())} / {int((~measuring.truth).sum())}"
    best = best_threshold(detector, choosing)
    print(
        f"| `{detector.column}` | {detector.finds} {detector.threshold:g} ({best:.3g}) | {sizes} | {precision:.3f} | "
        f"{recall:.3f} | {measuring.auc(detector.finds):.3f} |"
    )
    for kind in sorted(set(measuring.kinds)):
        mine = np.array([each == kind for each in measuring.kinds])
        print(f"    {kind}: {found[mine].mean():.3f} of {mine.sum()} found")


def measure_turns(pictures: list[Image.Image]) -> None:
    """EXIF: what is told beside what was written, for every orientation and format."""
    formats = ("JPEG", "PNG", "WEBP", "TIFF")
    turns = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True)}
    turns |= {5: (270, True), 6: (90, False), 7: (90, True), 8: (270, False)}
    right = total = 0
    for number, picture in enumerate(pictures):
        for orientation, turn in turns.items():
            found = detect(cases.turned(picture, orientation, formats[number % 4]))
            right += (found.exif_rotation_degrees, found.exif_mirrored) == turn
            total += 1
    print(
        f"| `exif_rotation_degrees`, `exif_mirrored` | exact | {total} | {right / total:.3f} | {right / total:.3f} | |"
    )


def measure_sizes(pictures: list[Image.Image]) -> None:
    """How much of sharp photos and of screens is found at sizes that the cases do not have."""
    for side in (224, 160, 128, 96, 64):
        small = [encoded(picture.resize((side, side), Image.Resampling.LANCZOS)) for picture in pictures]
        print(f"sharp photos of {side} px: {np.mean(told(small, 'sharpness') < BLURRED):.2f} below {BLURRED}")
    for size in ((512, 512), (1000, 700), (1920, 1080), (2560, 1440)):
        noises = [np.random.Generator(np.random.Philox(number)) for number in range(len(pictures))]
        made = [encoded(screen(noise, picture, size)) for noise, picture in zip(noises, pictures, strict=True)]
        likeness = np.mean(told(made, "screenshot_likeness") > SCREENSHOT)
        text = np.mean(told(made, "text_coverage") > TEXT)
        print(f"screens of {size[0]} x {size[1]} px: {likeness:.2f} like screenshots, {text:.2f} with text")


def encoded(picture: Image.Image) -> bytes:
    """As PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def rgb(images: list[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(image)).convert("RGB") for image in images]


def speed(images: list[bytes]) -> None:
    detect(images[0])
    began = time.process_time()
    for image in images:
        detect(image)
    print(f"{(time.process_time() - began) / len(images) * 1000:.1f} ms of CPU time an image, {len(images)} images")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--other", nargs="+", action="append", default=[], metavar=("SORT", "SHARD"))
    parser.add_argument(
        "--most", type=int, default=400, help="photos, and pictures of each other sort, for both halves"
    )
    options = parser.parse_args()
    found = photos(options.shards)
    found = found[len(found) // 2 :][: options.most]
    others = {sort: photos(shards) for sort, *shards in options.other}
    halves = [
        cases.Material(
            rgb(found[part::2]),
            {sort: rgb(images[part : options.most : 2]) for sort, images in others.items()},
            np.random.Generator(np.random.Philox(part)),
        )
        for part in (1, 0)
    ]
    print("| column | threshold (best of the other half) | cases | precision | recall | AUC |")
    print("| --- | --- | --- | --- | --- | --- |")
    for detector in DETECTORS:
        choosing, measuring = (measure(detector, half) for half in halves)
        report(detector, choosing, measuring)
    measure_turns(halves[1].photos[:40])
    measure_sizes(halves[1].photos[:60])
    for sort, images in {"photos": found, **others}.items():
        print(f"{sort}:", end=" ")
        speed(images[:200])


if __name__ == "__main__":
    main()
