"""What is written beside an image: true captions from a small grammar, boilerplate, and product titles."""

from collections.abc import Callable

import numpy as np

from pipeline.demo.scenes import Group, Scene, pick

NUMBERS = ("no", "one", "two", "three", "four")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLURAL = {"cross": "crosses"}

BOILERPLATE = {
    "training": (
        "buy online today and save {n} percent",
        "photo {n}",
        "scan{n}.tif",
        "logo",
        "follow us on social media",
        "all rights reserved {year}",
        "share this page with your friends",
        "image may be subject to copyright",
        "sign in to see more results",
        "high resolution wallpaper free download {n}",
        "picture of the day",
        "view all {n} comments",
    ),
    "demo": (
        "click here to buy now",
        "image {n}.jpg",
        "stock photo best price free shipping",
        "DSC_{n}.JPG",
        "subscribe to our newsletter for weekly deals",
        "copyright {year} by the photographer, unauthorised use prohibited",
        "thumbnail {n} of gallery",
        "advertisement",
        "no description available",
        "add to cart - only {n} left in stock",
        "back to top of page {n}",
        "default title placeholder text",
    ),
}
"""Captions that say nothing about the image. The two sets share no template: the encoder never sees the demo's."""

MAKERS = ("Voltano", "Kerrit", "Bluepeak", "Samtor", "Ortiva", "Nexlo", "Quanta Home", "Zephyra", "Lumero", "Hadwin")
WARES = (
    "wireless mouse",
    "screen protector",
    "travel mug",
    "phone case",
    "wall charger",
    "desk lamp",
    "cotton bedsheet",
    "yoga mat",
    "bluetooth speaker",
    "memory card",
    "running socks",
    "storage box",
)
QUALITIES = ("premium", "portable", "slim", "heavy duty", "waterproof", "rechargeable", "foldable", "anti slip")
OFFERS = ("free delivery", "2 year warranty", "combo offer", "limited edition", "with gift box", "value pack")


def caption(scene: Scene, phrasing: str, rng: np.random.Generator) -> str:
    """A true sentence on the scene in one of `PHRASINGS`; the first group's number, colour and shape always stand."""
    return PHRASINGS[phrasing](scene, rng)


def boilerplate(rng: np.random.Generator, kind: str = "demo") -> str:
    """A caption that says nothing about any image, from one of the two sets of templates."""
    return pick(rng, BOILERPLATE[kind]).format(n=int(rng.integers(1, 100_000)), year=int(rng.integers(2005, 2026)))


def product_title(rng: np.random.Generator) -> str:
    """A shop's title for an off-domain image."""
    size = f"{int(rng.integers(1, 60)) * 50} {pick(rng, ('ml', 'mm', 'mAh', 'g'))}"
    parts = [pick(rng, MAKERS), pick(rng, QUALITIES), pick(rng, WARES), size]
    if rng.random() < 0.7:
        parts.append(f"pack of {int(rng.integers(2, 13))}")
    title = " ".join(parts).title()
    return f"{title} - {pick(rng, OFFERS)}" if rng.random() < 0.6 else title


def thing(group: Group) -> str:
    """The group's shape, in the plural where it is of several objects."""
    return group.shape if len(group.places) == 1 else PLURAL.get(group.shape, group.shape + "s")


def group_phrase(group: Group, *, size: bool = False, article: bool = True) -> str:
    """Number, colour and shape, e.g. `two red stars`; `a` for one with `article`, else `one`."""
    count = len(group.places)
    number = NUMBERS[count] if count != 1 or not article else "a"
    words = [number, *([group.size] if size else []), group.colour, thing(group)]
    phrase = " ".join(words)
    return phrase.replace("a orange", "an orange") if phrase.startswith("a orange") else phrase


def _plain(scene: Scene, rng: np.random.Generator) -> str:
    sized = rng.random() < 0.3
    text = group_phrase(scene.groups[0], size=sized)
    if scene.relation is not None:
        text += f" {scene.relation} {group_phrase(scene.groups[1], size=sized)}"
    if rng.random() < 0.55:
        text += f" on a {scene.backdrop} background"
    return text + _sign(scene, rng, " with the word {word}")


def _notes(scene: Scene, rng: np.random.Generator) -> str:
    first = group_phrase(scene.groups[0], size=rng.random() < 0.3, article=False)
    text = pick(rng, ("drawing of {}", "sketch: {}", "{} drawn by hand")).format(first)
    if scene.relation is not None:
        text += f", {OPPOSITE[scene.relation]} it {group_phrase(scene.groups[1], article=False)}"
    if rng.random() < 0.35:
        text += f", {scene.backdrop} paper"
    return text + _sign(scene, rng, ', it reads "{word}"')


def _alt_text(scene: Scene, rng: np.random.Generator) -> str:
    phrases = [group_phrase(group) for group in scene.groups]
    if scene.relation is not None and rng.random() < 0.5:
        text = f"{phrases[1]} {OPPOSITE[scene.relation]} {phrases[0]}"
    else:
        text = " and ".join(phrases)
    text = pick(rng, ("{}", "photo of {}", "we saw {}", "{} in the street")).format(text)
    if rng.random() < 0.4:
        text += f" against a {scene.backdrop} wall"
    return text + _sign(scene, rng, ", sign says {word}")


def _tags(scene: Scene, rng: np.random.Generator) -> str:
    words = [f"{len(group.places)} {group.colour} {group.shape}" for group in scene.groups]
    if scene.relation is not None:
        words.append(f"{scene.groups[0].shape} {scene.relation} {scene.groups[1].shape}")
    words += [scene.backdrop] * (rng.random() < 0.5) + ([scene.word.lower()] if scene.word else [])
    return ", ".join(words)


def _sign(scene: Scene, rng: np.random.Generator, template: str) -> str:
    return template.format(word=scene.word) if scene.word and rng.random() < 0.8 else ""


PHRASINGS: dict[str, Callable[[Scene, np.random.Generator], str]] = {
    "plain": _plain,
    "notes": _notes,
    "alt_text": _alt_text,
    "tags": _tags,
}
