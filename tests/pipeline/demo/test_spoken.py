"""What of a picture captions name, in all of the generator's words."""

import numpy as np
import pytest

from pipeline.demo.captions import PHRASINGS, caption
from pipeline.demo.scenes import draw_scene, randomness
from pipeline.demo.spoken import groups, named


@pytest.mark.parametrize("phrasing", sorted(PHRASINGS))
def test_every_phrasing_names_the_first_group(phrasing: str) -> None:
    for index in range(200):
        rng = randomness(3, "test", index)
        scene = draw_scene(rng)
        first = scene.groups[0]
        said = list(groups(caption(scene, phrasing, rng)))
        assert (len(first.places), first.colour, first.shape) in said
        known = {(len(group.places), group.colour, group.shape) for group in scene.groups}
        assert set(said) <= known, "nothing that is not there"


def test_shares_are_of_what_is_true() -> None:
    lines = [
        {"true": "two red stars above a blue ring", "written": "a blue ring below two red stars"},
        {"true": "three green crosses", "written": "three small red crosses and a green heart"},
        {"true": "an orange circle", "written": ""},
    ]
    found = named(lines)
    assert found == {"numbers": 3 / 4, "colours": 3 / 4, "shapes": 3 / 4, "groups": 2 / 4}
    assert named([{"true": "advertisement", "written": "a red star"}]) == {}
    assert np.isclose(named(lines[:1])["groups"], 1)
