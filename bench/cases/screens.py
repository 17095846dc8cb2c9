"""Pictures of screens, drawn: pages, editors, tables, chats and dialogs, light and dark, some with a photo inside."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from bench.cases.lettering import any_face, face, phrase

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Screen:
    """A drawing surface with a theme."""

    image: Image.Image
    brush: ImageDraw.ImageDraw
    rng: np.random.Generator
    ground: Colour
    panel: Colour
    ink: Colour
    accent: Colour
    letter_px: int

    def between(self, low: float, high: float) -> int:
        return int(self.rng.uniform(low, high))

    def lines(self, box: Box, ink: Colour | None = None, mono: bool = False) -> None:
        """Text of ragged lines inside a box."""
        left, top, right, bottom = box
        letters = face("DejaVuSansMono", self.letter_px) if mono else any_face(self.rng, self.letter_px)
        while top + self.letter_px < bottom:
            words = phrase(self.rng, self.between(1, 14)).lower()
            indent = self.between(0, 4) * 2 * self.letter_px if mono else 0
            while len(words) > 2 and letters.getlength(words) > right - left - indent:
                words = words[:-1]
            self.brush.text((left + indent, top), words, fill=ink or self.ink, font=letters)
            top += round(1.5 * self.letter_px)


def screen(rng: np.random.Generator, photo: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """A screen of that size, else of 300 to 1,000 px a side, RGB, letters 9 to 16 px; `photo` may be shown in it."""
    width, height = size or (int(rng.integers(300, 1001)) for _ in range(2))
    tone = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9))
    accent = (int(255 * tone[0]), int(255 * tone[1]), int(255 * tone[2]))
    dark = rng.random() < 0.35
    levels = (rng.integers(15, 60), rng.integers(40, 90), 220) if dark else (rng.integers(240, 256), 225, 30)
    ground, panel, ink = (_near(int(level), rng) for level in levels)
    image = Image.new("RGB", (width, height), ground)
    drawn = Screen(image, ImageDraw.Draw(image), rng, ground, panel, ink, accent, int(rng.integers(9, 17)))
    below = _bar(drawn) if rng.random() < 0.8 else 0
    LAYOUTS[int(rng.integers(len(LAYOUTS)))](drawn, (0, below, width, height), photo)
    return image


def _near(level: int, rng: np.random.Generator) -> Colour:
    red, green, blue = np.clip(level + rng.integers(-6, 7, 3), 0, 255).tolist()
    return red, green, blue


def _bar(drawn: Screen) -> int:
    """A title bar with buttons; returns where it ends."""
    end = drawn.between(20, 44)
    drawn.brush.rectangle(
        (0, 0, drawn.image.width, end), fill=drawn.accent if drawn.rng.random() < 0.5 else drawn.panel
    )
    for number in range(3):
        drawn.brush.ellipse((8 + 18 * number, end // 2 - 5, 18 + 18 * number, end // 2 + 5), fill=drawn.ink)
    drawn.lines((80, end // 2 - drawn.letter_px // 2, drawn.image.width - 20, end))
    return end


def _page(drawn: Screen, box: Box, photo: Image.Image) -> None:
    """A column of text beside a panel, with a picture in it."""
    left, top, right, bottom = box
    split = left + int(drawn.rng.uniform(0.15, 0.35) * (right - left))
    drawn.brush.rectangle((left, top, split, bottom), fill=drawn.panel)
    drawn.lines((left + 10, top + 15, split - 5, bottom - 10))
    place = top + 15
    if drawn.rng.random() < 0.6:
        side = int(drawn.rng.uniform(0.2, 0.4) * min(right - split, bottom - top))
        drawn.image.paste(photo.resize((side, side)), (split + 15, place))
        place += side + 15
    drawn.lines((split + 15, place, right - 15, bottom - 10))


def _editor(drawn: Screen, box: Box, photo: Image.Image) -> None:
    """Indented lines in a fixed face beside a strip of line numbers."""
    left, top, right, bottom = box
    drawn.brush.rectangle((left, top, left + 36, bottom), fill=drawn.panel)
    letters = face("DejaVuSansMono", drawn.letter_px)
    for number, at in enumerate(range(top + 5, bottom, round(1.5 * drawn.letter_px))):
        drawn.brush.text((left + 6, at), str(number + 1), fill=drawn.accent, font=letters)
    drawn.lines((left + 46, top + 5, right - 5, bottom), mono=True)


def _table(drawn: Screen, box: Box, photo: Image.Image) -> None:
    """Cells with rules between them."""
    left, top, right, bottom = box
    wide, high = drawn.between(60, 140), int(drawn.rng.uniform(1.8, 2.6) * drawn.letter_px)
    for at in range(top, bottom, high):
        drawn.brush.line((left, at, right, at), fill=drawn.accent)
        for column in range(left, right, wide):
            drawn.lines((column + 5, at + 4, column + wide - 8, at + 5 + drawn.letter_px))
    for column in range(left, right, wide):
        drawn.brush.line((column, top, column, bottom), fill=drawn.accent)


def _chat(drawn: Screen, box: Box, photo: Image.Image) -> None:
    """Bubbles on two sides."""
    left, top, right, bottom = box
    while top < bottom - 30:
        high, wide = (
            int(drawn.rng.uniform(2.2, 7) * drawn.letter_px),
            int(drawn.rng.uniform(0.4, 0.75) * (right - left)),
        )
        mine = drawn.rng.random() < 0.5
        start = right - wide - 10 if mine else left + 10
        colour = drawn.accent if mine else drawn.panel
        drawn.brush.rounded_rectangle((start, top + 8, start + wide, top + 8 + high), 10, fill=colour)
        drawn.lines((start + 10, top + 14, start + wide - 10, top + 4 + high))
        top += high + 14


def _dialog(drawn: Screen, box: Box, photo: Image.Image) -> None:
    """A window with a question and two buttons on an empty desk."""
    left, top, right, bottom = box
    x, y = left + (right - left) // 6, top + (bottom - top) // 5
    end, low = right - (right - left) // 6, bottom - (bottom - top) // 5
    drawn.brush.rectangle((x, y, end, low), fill=drawn.panel, outline=drawn.ink)
    drawn.brush.rectangle((x, y, end, y + 22), fill=drawn.accent)
    drawn.lines((x + 12, y + 32, end - 12, low - 45))
    for number in range(2):
        button = (end - 100 * (number + 1), low - 34, end - 100 * number - 12, low - 10)
        drawn.brush.rectangle(button, fill=drawn.accent, outline=drawn.ink)
        drawn.lines((button[0] + 8, button[1] + 5, button[2] - 4, button[3]))


LAYOUTS: tuple[Callable[[Screen, Box, Image.Image], None], ...] = (_page, _editor, _table, _chat, _dialog)
