"""Generated cases for each image detector: what it should find, and what is easily taken for it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from bench.cases import damage
from bench.cases.collages import collage
from bench.cases.lettering import lettered
from bench.cases.photos import jpeg_bytes
from bench.cases.screens import screen
from bench.cases.things import rows_of_things

ORIENTATION = 0x0112
Cases = Iterator["Case"]


@dataclass(frozen=True)
class Case:
    """One image file; `kind` says how it was made."""

    kind: str
    positive: bool
    image: bytes


@dataclass(frozen=True)
class Material:
    """What cases are made of: photos, and pictures of other sorts by their sort, all RGB."""

    photos: list[Image.Image]
    others: dict[str, list[Image.Image]]
    rng: np.random.Generator

    def plain(self) -> Cases:
        """Every photo as it is, and the others."""
        yield from (self.case("photo", False, photo) for photo in self.photos)
        for sort, pictures in self.others.items():
            yield from (self.case(sort, False, picture) for picture in pictures)

    def case(self, kind: str, positive: bool, picture: Image.Image) -> Case:
        """As JPEG of quality 70 to 95."""
        return Case(kind, positive, jpeg_bytes(picture, int(self.rng.integers(70, 96))))


def blurred(given: Material) -> Cases:
    """A Gaussian or a motion blur of each photo, at half to twice its size; sharp ones at the same sizes."""
    for number, photo in enumerate(given.photos):
        scale = 2 ** given.rng.uniform(-1, 1)
        sized = photo.resize((int(photo.width * scale), int(photo.height * scale)), Image.Resampling.LANCZOS)
        sigma, length = (1.0, 1.5, 2.0, 3.0, 5.0)[number % 5], (4, 7, 12)[number % 3]
        if number % 2:
            picture = damage.motion_blurred(sized, length, given.rng.uniform(0, 180))
            yield given.case(f"motion of {length} px", True, picture)
        else:
            yield given.case(f"Gaussian of {sigma} px", True, damage.gaussian_blurred(sized, sigma))
        # Enlarged photos are blurred ones: sharp are those that were not.
        yield given.case("sharp", False, sized if scale < 1 else photo)


def blank(given: Material) -> Cases:
    for _ in given.photos:
        yield given.case("near constant", True, damage.near_constant(given.rng))
        yield given.case("nearly empty", False, damage.nearly_empty(given.rng))
    yield from given.plain()


def few_tones(given: Material) -> Cases:
    """Flat drawings and blanks; photos, also with a quarter to a half of their contrast."""
    for photo in given.photos:
        yield given.case("flat drawing", True, damage.low_content(given.rng))
        yield given.case("near constant", True, damage.near_constant(given.rng))
        weak = ImageEnhance.Contrast(photo).enhance(given.rng.uniform(0.25, 0.5))
        yield given.case("photo of low contrast", False, weak)
        yield given.case("photo", False, photo)


def bordered(given: Material) -> Cases:
    for photo in given.photos:
        yield given.case("framed", True, damage.framed(photo, given.rng)[0])
    yield from given.plain()


def texted(given: Material) -> Cases:
    """A photo with words, as it is, or with rows of beads, windows, bars: no photo is seen in two ways."""
    for number, photo in enumerate(given.photos):
        if number % 2:
            yield given.case("words", True, lettered(photo, given.rng)[0])
        elif number % 4:
            yield given.case("rows of things", False, rows_of_things(photo, given.rng))
        else:
            yield given.case("photo", False, photo)


def screens(given: Material) -> Cases:
    """Screens, two of five reduced by up to 60 %; pictures with words, frames, blanks, drawings, collages."""
    for number, photo in enumerate(given.photos):
        drawn = screen(given.rng, photo)
        if number % 5 < 2:
            scale = given.rng.uniform(0.4, 1)
            drawn = drawn.resize((int(drawn.width * scale), int(drawn.height * scale)), Image.Resampling.LANCZOS)
        yield given.case("screen", True, drawn)
        yield _distraction(given, number)
    yield from given.plain()


def collages(given: Material) -> Cases:
    for number in range(len(given.photos)):
        chosen = given.rng.permutation(len(given.photos))[:9].tolist()
        yield given.case("collage", True, collage([given.photos[k] for k in chosen], given.rng))
        yield _distraction(given, number)
    yield from given.plain()


def _distraction(given: Material, number: int) -> Case:
    """Something that is neither a screen nor a collage."""
    photo, rng = given.photos[number], given.rng
    kinds: tuple[tuple[str, Callable[[], Image.Image]], ...] = (
        ("words", lambda: lettered(photo, rng)[0]),
        ("framed", lambda: damage.framed(photo, rng)[0]),
        ("nearly empty", lambda: damage.nearly_empty(rng)),
        ("flat drawing", lambda: damage.low_content(rng)),
    )
    kind, make = kinds[number % len(kinds)]
    return given.case(kind, False, make())


def turned(picture: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """The picture with an EXIF orientation, as JPEG, PNG, WEBP or TIFF."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(buffer, kind, exif=exif)
    return buffer.getvalue()
