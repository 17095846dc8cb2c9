"""Measures on captions against brute force and by hand, and on captions made to be slow."""

import tarfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.quality.caption_rules import CaptionRules
from stages.quality.caption_rules.boilerplate import boilerplate
from stages.quality.caption_rules.endings import ending
from stages.quality.caption_rules.file_names import file_name
from stages.quality.caption_rules.ngrams import repeated_ngram_share, repeats, top_ngram_share, words
from stages.quality.caption_rules.shares import shares, url_characters
from stages.quality.caption_rules.stage import CHARACTERS_SEEN, CaptionMeasures

TOKENS = st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), max_size=14)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_shares_are_those_of_unicode_s_categories(text: str) -> None:
    shown = [unicodedata.category(letter) for letter in text if not (letter.isspace() or _unseen(letter))]
    found = shares(text)
    if not shown:
        assert found is None
        return
    cased = [name for name in shown if name in ("Ll", "Lu", "Lt")]
    assert found is not None
    assert found.digits == pytest.approx(shown.count("Nd") / len(shown))
    assert found.symbols == pytest.approx(sum(name[0] not in "LM" and name != "Nd" for name in shown) / len(shown))
    assert found.uppercase == pytest.approx((len(cased) - cased.count("Ll")) / len(cased) if cased else 0)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "Z" or unicodedata.category(letter) in ("Cc", "Cf")


def marked(tokens: list[str], n: int, chosen: set[tuple[str, ...]]) -> float:
    """Share of the characters of words that lie inside an occurrence of one of the n-grams, word by word."""
    inside = [
        any(tuple(tokens[s : s + n]) in chosen for s in range(max(0, place - n + 1), place + 1) if s + n <= len(tokens))
        for place in range(len(tokens))
    ]
    return sum(len(t) for t, yes in zip(tokens, inside, strict=True) if yes) / sum(map(len, tokens))


def grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


@settings(deadline=None)
@given(TOKENS, st.integers(2, 6))
def test_repeated_ngrams_are_those_of_brute_force(tokens: list[str], n: int) -> None:
    twice = {gram for gram in grams(tokens, n) if grams(tokens, n).count(gram) > 1}
    assert repeated_ngram_share(tokens, n) == pytest.approx(marked(tokens, n, twice) if twice else 0)
    best = 0.0
    for size in (2, 3, 4):
        found = grams(tokens, size)
        most = max(map(found.count, found), default=0)
        if most > 1:
            top = max((g for g in found if found.count(g) == most), key=lambda gram: len("".join(gram)))
            best = max(best, marked(tokens, size, {top}))
    assert top_ngram_share(tokens) == pytest.approx(best)
    assert repeats(tokens) == (best > 0)


def test_words_are_runs_of_letters_and_single_signs_where_no_spaces_are_written() -> None:
    assert words("it's a red-ball, n°5") == ["it", "s", "a", "red", "ball", "n", "5"]
    assert words("東京tower") == ["東", "京", "tower"]
    assert top_ngram_share(words("sale sale sale")) == 1.0
    assert top_ngram_share(words("red ball, red ball!")) == 1.0
    assert top_ngram_share(words("the ball and the cat")) == 0.0
    assert repeated_ngram_share(words("a nice red ball and a nice red cup"), 3) == pytest.approx(16 / 26)


MARKED = {
    "accents": ("le cafe\u0301 est ouvert", ["le", "cafe\u0301", "est", "ouvert"]),
    "arabic": ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),
    "devanagari": ("हिन्दी की साखी", ["हिन्दी", "की", "साखी"]),
    "thai": ("มีตำหนิ vans", ["มี", "ต", "\u0e33", "ห", "นิ", "vans"]),
    "turkish": ("DİCLE KALKINMA".lower(), ["di\u0307cle", "kalkinma"]),
    "two bases": ("か\u3099a\u0301\u0302b 5\u20e3", ["か\u3099", "a\u0301\u0302b", "5\u20e3"]),
    "alone": ("\u0301 a\u0301", ["a\u0301"]),
}


@pytest.mark.parametrize("case", MARKED)
def test_marks_belong_to_what_they_stand_on(case: str) -> None:
    text, expected = MARKED[case]
    assert words(text) == expected


@pytest.mark.parametrize("caption", ["Café 5 €, café 5 €", "Ấn Độ ấn độ 12", "한국어 한국어 7!"])
def test_a_decomposed_caption_measures_as_the_composed_one(caption: str) -> None:
    apart = unicodedata.normalize("NFD", caption)
    assert len(apart) > len(caption)
    assert CaptionRules().measures(apart) == CaptionRules().measures(caption)


def test_words_cut_by_marks_repeat_nothing() -> None:
    assert CaptionRules().measures("हिन्दी की साखी").top_ngram_share == 0
    assert CaptionRules().measures("เรือ ที่ ทะเล ที่ บ้าน").repeated_ngram_share == 0
    assert CaptionRules().measures("की साखी की साखी").top_ngram_share == 1


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("a red ball on the grass", "none"),
        ("A man reads a book in a shop", "none"),
        ("Vector graphics of a stock car photo finish", "none"),
        ("Old wine press and oak barrels", "none"),
        ("a cookie on a plate", "none"),
        ("The image of a saint", "none"),
        ("Photo of a dog", "none"),
        ("Logo of the red ball company", "none"),
        ("Woman holding a clock — Stock Photo", "stock"),
        ("Royalty-Free Stock Images", "stock"),
        ("Click to enlarge", "click"),
        ("Red dress - click here to view larger image", "click"),
        ("opens in a new window", "click"),
        ("This site uses cookies", "notice"),
        ("© 2020 Red Ball Inc. All rights reserved.", "notice"),
        ("Please enable JavaScript", "notice"),
        ("Image may contain: 1 person, smiling", "machine"),
        ("May be an image of dog and outdoors", "machine"),
        ("A picture containing grass. Description automatically generated", "machine"),
        ("This image has an empty alt attribute; its file name is ball.jpg", "machine"),
        ("No image available", "placeholder"),
        ("Image coming soon", "placeholder"),
        ("Photo 3 of 12", "placeholder"),
        ("logo", "placeholder"),
        ("untitled-2", "placeholder"),
        ("Image #4", "placeholder"),
        ("Share on Facebook", "share"),
        ("Pin it", "share"),
        ("Women's beret - Free Shipping", "shop"),
        ("Add to cart", "shop"),
        ("Only two left in stock", "shop"),
        ("A sunset found in stock photos", "stock"),
        ("Advertisement", "share"),
        ("An old advertisement for the Ford GT 350.", "none"),
    ],
)
def test_page_furniture(caption: str, kind: str) -> None:
    found, length = boilerplate(caption.lower())
    assert found == kind
    assert (length == 0) == (kind == "none") and length <= len(caption)


@pytest.mark.parametrize(
    ("caption", "kind", "length"),
    [
        ("a red ball", "none", 0),
        ("Sony DSC-W80 camera", "none", 0),
        ("state of the art", "none", 0),
        ("Model P1000", "none", 0),
        ("Screenshot of a game, level 2", "none", 0),
        ("E. coli under a microscope", "none", 0),
        ("IMG_1234.JPG", "camera", 12),
        ("IMG_1234", "camera", 8),
        ("DSC00012", "camera", 8),
        ("_DSC1234.NEF", "camera", 12),
        ("P1010101", "camera", 8),
        ("PXL_20210101_123456789.jpg", "camera", 26),
        ("IMG-20200101-WA0001", "camera", 19),
        ("20190304_121212", "camera", 15),
        ("WhatsApp Image 2020-01-02 at 10.10.10.jpeg", "camera", 42),
        ("screenshot-2020-03-04", "screenshot", 21),
        ("Screenshot 2020-03-04 at 10.11.12.png", "screenshot", 37),
        ("Screenshot (23)", "screenshot", 15),
        ("d41d8cd98f00b204e9800998ecf8427e", "hash", 32),
        ("550e8400-e29b-41d4-a716-446655440000.png", "hash", 40),
        ("123456789_10152345678_123456_n.jpg", "hash", 34),
        ("tumblr_abc123def456_1280", "hash", 24),
        ("Fox Crochet Hat.jpg", "extension", 7),
        ("File:Red-ball.svg", "extension", 17),
        ("a-red-ball-on-the-grass", "slug", 23),
        ("Team_Football_20110903_0043", "slug", 27),
    ],
)
def test_file_names(caption: str, kind: str, length: int) -> None:
    assert file_name(caption.lower()) == (kind, length)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("see https://example.org/a?b=c now", 25),
        ("www.example.org", 15),
        ("at example.com.", 11),
        ("shop.example.co.uk/red", 22),
        ("a ball. the end", 0),
        ("asp.net 3.5", 7),
        ("me@example.com", 0),
        ("e.g. this vs. that", 0),
        ("version 1.2.3", 0),
    ],
)
def test_web_addresses(text: str, length: int) -> None:
    assert url_characters(text) == length


@pytest.mark.parametrize(
    ("caption", "how"),
    [
        ("Durable Cable, Made in India...", "ellipsis"),
        ("Street shrines, Burm…", "ellipsis"),
        ('and "more ..."', "ellipsis"),
        ("Jan. 5.", "none"),
        ("Laptop (8GB RAM, 512GB", "open_bracket"),
        ("Laptop (8GB) [2020", "open_bracket"),
        ("Laptop (8GB)", "none"),
        ("so sad :(", "none"),
        ("Kitchen Blender with Food Processor,", "dangling"),
        ("Pioneer Digital Multimedia -", "dangling"),
        ("he has starred in all of the", "dangling"),
        ("Vitamin A", "none"),
        ("T-shirt, size S/M", "none"),
        ("ages 7+", "none"),
        ("http://example.org/a/", "none"),
        ("a red ball", "none"),
        ("exactly twenty chars", "cut_length"),
        ("a sentence of twenty", "cut_length"),
        ("one sentence of 20. ", "none"),
    ],
)
def test_endings(caption: str, how: str) -> None:
    assert ending(caption, (20,)) == how


def test_a_caption_that_shows_nothing_has_a_reason() -> None:
    stage = CaptionRules()
    for blank in ("", " \t\n", "\u200b\ufeff"):
        assert stage.measures(blank) == CaptionMeasures(reason="empty_caption")
    assert stage.measures(None) == CaptionMeasures(reason="missing_caption")
    assert stage.measures("\u0301").reason is None
    with pytest.raises(ValidationError):
        CaptionRules(cut_lengths=(0,))
    with pytest.raises(ValidationError):
        CaptionRules(repeated_words=1)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_every_caption_is_measured_within_bounds(caption: str) -> None:
    found = CaptionRules(cut_lengths=(5,)).measures(caption)
    for name, value in found._asdict().items():
        if name != "reason" and found.reason is None:
            assert isinstance(value, str) or 0 <= value <= 1


SLOW = [
    "a",
    "A1",
    "a.",
    "a-",
    "a_",
    "a@",
    "http://",
    "www.",
    "image ",
    "click here to ",
    "img_",
    "0a",
    "_zps",
    "a b ",
    " ",
    "x" * 30,
]


@pytest.mark.parametrize(
    "unit",
    [*SLOW, "screenshot 2020-", "tumblr_a", "\x00", "\u0315", "a\u0315", "\u0315\u0300", "中", "...", "(", "ﷺ", "\n"],
)
def test_captions_made_to_be_slow_are_not(unit: str) -> None:
    """2 MB each; with a pattern that goes back over what it read this would take hours."""
    caption = (unit * (2 << 20))[: 2 << 20]
    measured = CaptionRules().measures(caption)
    assert measured == CaptionRules().measures(caption.strip()[:CHARACTERS_SEEN])


def captions(folder: Path) -> list[str]:
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".txt") else None
                found += [file.read().decode()] if file else []
    return found


def test_real_sources_differ_as_they_look(shared: Path) -> None:
    """Shop titles end in dots and are full of signs, photo captions are sentences, emoji captions are plain."""
    stage = CaptionRules()
    of = {
        name: [stage.measures(text) for text in captions(shared / "data/pool" / name)]
        for name in ("photos", "electronics", "emoji")
    }
    cut = {name: sum(m.truncated_ending == "ellipsis" for m in found) / len(found) for name, found in of.items()}
    assert cut["electronics"] > 0.5 and cut["photos"] == cut["emoji"] == 0
    digits = {name: sum(m.digit_share or 0 for m in found) / len(found) for name, found in of.items()}
    assert digits["electronics"] > 0.05 > 0.001 > max(digits["photos"], digits["emoji"])
    for found in of.values():
        assert {m.boilerplate for m in found} == {m.file_name for m in found} == {"none"}
