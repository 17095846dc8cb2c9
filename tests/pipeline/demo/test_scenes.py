import re

import numpy as np
import pytest

from pipeline.demo.captions import NUMBERS, PHRASINGS, boilerplate, caption, product_title
from pipeline.demo.defects import wrong_caption
from pipeline.demo.render import DEMO_STYLES, TRAINING_STYLES, draw
from pipeline.demo.scenes import COLOURS, RADIUS, SHAPES, UNCLEAR, Scene, differs, draw_scene, randomness

THING = rf"(a|an|one|two|three|four|[1-4]) (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?\b"
RELATION = "(left of|right of|above|below)"
COUNTS = {"a": 1, "an": 1, **{word: number for number, word in enumerate(NUMBERS)}, **{str(n): n for n in range(1, 5)}}


def scenes(count: int) -> list[Scene]:
    return [draw_scene(randomness(5, "test", index)) for index in range(count)]


def is_where(one: Scene, first: int, relation: str, second: int) -> bool:
    axis = 0 if relation in ("left of", "right of") else 1
    a = [place[axis] for place in one.groups[first].places]
    b = [place[axis] for place in one.groups[second].places]
    return max(a) < min(b) if relation in ("left of", "above") else min(a) > max(b)


def named(scene: Scene, words: tuple[str, ...]) -> int:
    """Index of the group that a phrase names truthfully; fails when there is none."""
    number, size, colour, shape = words
    for index, group in enumerate(scene.groups):
        if (group.colour, group.shape, len(group.places)) == (colour, shape, COUNTS[number]):
            assert size in ("", group.size)
            return index
    raise AssertionError(f"{words} is not in {scene}")


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_captions_say_only_what_is_there(phrasing):
    for index, scene in enumerate(scenes(300)):
        text = caption(scene, phrasing, randomness(5, "words", index))
        things = re.findall(THING, text)
        assert things, text
        assert sorted(named(scene, thing) for thing in things) == list(range(len(scene.groups))), text
        assert scene.word is None or "sign" not in text or scene.word in text
        ground = re.search(r"(?:on a|against a|,) (\w+) (?:background|wall|paper)", text)
        assert ground is None or ground[1] == scene.backdrop


@pytest.mark.parametrize("phrasing", ["plain", "notes", "alt_text"])
def test_relations_hold_in_the_image(phrasing):
    checked = 0
    for index, scene in enumerate(scenes(300)):
        text = caption(scene, phrasing, randomness(5, "words", index))
        if between := re.search(f"{THING} {RELATION} {THING}", text):
            first, relation, second = between.groups("")[:4], between[5], between.groups("")[5:]
        elif after := re.search(rf"{THING}[^,]*, {RELATION} it {THING}", text):
            second, relation, first = after.groups("")[:4], after[5], after.groups("")[5:]
        else:
            continue
        assert is_where(scene, named(scene, first), relation, named(scene, second)), text
        checked += 1
    assert checked > 80


def test_objects_lie_inside_and_do_not_overlap():
    for scene in scenes(500):
        assert all((group.colour, scene.backdrop) not in UNCLEAR for group in scene.groups)
        assert len({group.shape for group in scene.groups}) == len(scene.groups)
        assert len({group.colour for group in scene.groups}) == len(scene.groups)
        assert 1 <= sum(len(group.places) for group in scene.groups) <= 6
        for group in scene.groups:
            points = np.array(group.places)
            assert (points > RADIUS[group.size]).all() and (points < 1 - RADIUS[group.size]).all()
            gaps = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(len(points), 1)]
            assert (gaps > 2 * RADIUS[group.size]).all()


@pytest.mark.parametrize("style", [*TRAINING_STYLES.values(), *DEMO_STYLES.values()])
def test_the_masks_show_the_named_colour(style):
    """The mean pixel under a mask is nearer to the group's colour than to a typical other one."""
    right = []
    for index in range(30):
        rng = randomness(6, "colour", index)
        scene = draw_scene(rng)
        drawing = draw(scene, style, rng)
        for group, mask in zip(scene.groups, drawing.masks, strict=True):
            seen = drawing.pixels[mask > 0.9].mean(0)
            hue = {name: _direction(seen) @ _direction(np.array(value)) for name, value in COLOURS.items()}
            right.append(group.colour in sorted(hue, key=hue.get)[-3:])
    assert np.mean(right) > 0.9


def _direction(colour: np.ndarray) -> np.ndarray:
    away = colour - colour.mean()
    return away / (np.linalg.norm(away) + 1e-9)


def test_drawing_depends_on_seed_stream_and_index_only():
    def pixels(seed: int, stream: str, index: int) -> bytes:
        rng = randomness(seed, stream, index)
        return draw(draw_scene(rng), DEMO_STYLES["street"], rng).pixels.tobytes()

    assert pixels(1, "a", 2) == pixels(1, "a", 2)
    assert len({pixels(1, "a", 2), pixels(2, "a", 2), pixels(1, "b", 2), pixels(1, "a", 3)}) == 4


def test_styles_of_training_and_demo_share_nothing_visible():
    demo = {style.backdrop for style in DEMO_STYLES.values()}
    assert not demo & {style.backdrop for style in TRAINING_STYLES.values()}
    assert set(TRAINING_STYLES.values()).isdisjoint(DEMO_STYLES.values())


@pytest.mark.parametrize("phrasing", ["plain", "notes", "alt_text"])
def test_a_wrong_caption_is_wrong(phrasing):
    for index, scene in enumerate(scenes(200)):
        things = re.findall(THING, wrong_caption(scene, phrasing, randomness(5, "wrong", index)))
        there = {(group.colour, group.shape, len(group.places)) for group in scene.groups}
        assert any((colour, shape, COUNTS[number]) not in there for number, _, colour, shape in things)
        colours, shapes = {g.colour for g in scene.groups}, {g.shape for g in scene.groups}
        assert any(colour not in colours and shape not in shapes for _, _, colour, shape in things)


def test_a_scene_does_not_differ_from_itself():
    assert not any(differs(scene, scene) for scene in scenes(50))


def test_boilerplate_and_titles_name_no_scene():
    for index in range(300):
        rng = randomness(5, "empty", index)
        for text in (boilerplate(rng), boilerplate(rng, "training"), product_title(rng)):
            assert not re.search(THING, text.lower())
