import re

import pytest

from pipeline.demo.mixture_world import HARMFUL, SOURCES, source_sample, write_mixture_world
from pipeline.demo.scenes import draw_scene, randomness
from schemas.errors import CuveeError
from tests.pipeline.demo.test_corpus import digests, read

PAIRS = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_mixture_world(tmp_path_factory.mktemp("mixture") / "corpus", pairs=PAIRS)


def test_sources_have_their_shares_and_the_target_both_useful_kinds(world):
    counts: dict[str, int] = {}
    for source, _ in read(world):
        counts[source] = counts.get(source, 0) + 1
    assert counts == {"scraped": 160, "street": 60, "studio": 60, "studio_again": 120, "target": 80}


def test_the_same_settings_give_the_same_bytes(world, tmp_path):
    assert digests(write_mixture_world(tmp_path / "again", pairs=PAIRS)) == digests(world)
    assert digests(write_mixture_world(tmp_path / "other", pairs=PAIRS, seed=1)) != digests(world)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_captions_tell_of_their_image_but_in_the_harmful_source(source):
    """The first group's shape and colour stand in a true caption; a wrong one opens with neither."""
    for number in range(30):
        first = draw_scene(randomness(3, f"mixture/{source.name}", number), source.origin.favoured).groups[0]
        words = re.findall(r"[a-z]+", source_sample(source, number, 3).caption.lower())
        told = first.colour in words and any(word.startswith(first.shape) for word in words)
        assert told == (source.name != HARMFUL), (number, words)


def test_a_world_of_other_settings_and_too_few_pairs_are_refused(world):
    with pytest.raises(CuveeError, match="name another folder"):
        write_mixture_world(world, pairs=PAIRS, seed=5)
    with pytest.raises(CuveeError, match="400 or more"):
        write_mixture_world(world, pairs=100)
