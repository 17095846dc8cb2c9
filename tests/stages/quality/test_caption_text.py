"""Caption facts against Unicode's own rules, and the language against sentences whose language is known."""

import sys
import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import RecipeError
from stages.no_text import bidi_controls, control_characters, markup
from stages.quality.caption_text import SCRIPTS, CaptionFacts, CaptionText, facts, language_model, normal_form, script


@pytest.mark.parametrize(
    ("caption", "normal"),
    [
        ("A  Red\tBALL\n", "a red ball"),
        ("ﬁne Straße", "fine strasse"),
        ("ＡＢＣ①", "abc1"),
        ("ΌΣΟΣ", "όσοσ"),
        ("x\u200by\ufeff soft\u00adhyphen\x07", "xy softhyphen"),
        ("e\u0301", "\u00e9"),
        ("a\u00a0b\u3000c", "a b c"),
        ("Ǆ", "dž"),
        ("\u200b \u00ad", ""),
        ("\u2764\ufe0f sale", "\u2764 sale"),
        ("\u2764\ufe0e sale", "\u2764 sale"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\U0001f680"),
        ("\u845b\U000e0100", "\u845b"),
        ("\u3164\uffa0", ""),
    ],
)
def test_normal_form(caption: str, normal: str) -> None:
    assert normal_form(caption) == normal


@settings(deadline=None)
@given(st.text())
def test_normal_form_is_idempotent_and_blind_to_case_form_and_space(caption: str) -> None:
    normal = normal_form(caption)
    assert normal_form(normal) == normal
    assert normal_form(f"  {unicodedata.normalize('NFD', caption)}\n") == normal
    assert normal_form(caption.replace("i", "I")) == normal
    assert all(unicodedata.category(letter) != "Cc" for letter in normal)


IGNORABLE = """00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0
    FFF0-FFF8 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"""
"""Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt."""


@cache
def ignorable() -> set[str]:
    ends = [[int(end, 16) for end in line.split("-")] for line in IGNORABLE.split()]
    return {chr(code) for line in ends for code in range(line[0], line[-1] + 1)}


def nfkc_casefold(letter: str) -> str:
    """NFKC_Casefold of a letter that is not ignorable: folded and decomposed until nothing changes."""
    letters = unicodedata.normalize("NFKC", letter).casefold()
    found = unicodedata.normalize("NFKC", "".join(each for each in letters if each not in ignorable()))
    return found if found == letter else nfkc_casefold(found)


def by_definition(caption: str) -> str:
    """toNFKC_Casefold of the caption's canonical decomposition, letter by letter, and spaces collapsed."""
    shown = "".join(letter for letter in caption if letter not in ignorable())
    folded = map(nfkc_casefold, unicodedata.normalize("NFD", shown))
    return " ".join(unicodedata.normalize("NFC", "".join(folded)).split())


def plain(letter: str) -> bool:
    """Where the normal form is Unicode's to the letter.

    Not for our own invisible characters and the joiner, nor for a blank with an iota below: NFKC sorts its parts anew.
    """
    return letter not in "\u034f\u037a" and (letter in ignorable() or unicodedata.category(letter)[0] != "C")


def test_of_every_letter_the_normal_form_is_what_unicode_says() -> None:
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1)) if plain(letter)]
    assert len(letters) > 130_000
    assert [letter for letter in letters if normal_form(letter) != by_definition(letter)] == []
    around = [f"a{letter}\u0301b" for letter in letters]
    assert [text for text in around if normal_form(normal_form(text)) != by_definition(text)] == []


MIXED = st.one_of(
    st.characters(exclude_categories=["C"]),
    st.sampled_from(sorted(ignorable())),
    st.characters(categories=["Mn"]),
    st.characters(min_codepoint=0x1100, max_codepoint=0x11FF),
    st.sampled_from("aA \u0345\u0130\ufb03\u00df"),
).filter(plain)


@settings(deadline=None, max_examples=400)
@given(st.text(MIXED, max_size=12))
def test_of_any_text_the_normal_form_is_what_unicode_says(caption: str) -> None:
    assert normal_form(caption) == by_definition(caption)


def test_the_joiner_stays_where_it_keeps_marks_apart() -> None:
    assert normal_form("a\u034f\u0301") == "a\u034f\u0301" != normal_form("a\u0301")
    marks = "a" + "\ufe0f".join("\u0315\u0300" * 40)
    assert normal_form(normal_form(marks)) == normal_form(marks) and "\u034f" in normal_form(marks)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_path_is_the_slow_one(caption: str) -> None:
    """One character beyond ASCII forces the long way."""
    assert normal_form(caption + " é") == f"{normal_form(caption)} é".strip()
    assert script(caption) == ("Latin" if any(map(str.isalpha, caption)) else "Common")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a dog", "Latin"),
        ("собака бежит, dog", "Cyrillic"),
        ("東京タワーの写真", "Han"),
        ("ひらがな", "Hiragana"),
        ("القطة", "Arabic"),
        ("강아지", "Hangul"),
        ("หมา", "Thai"),
        ("कुत्ता", "Devanagari"),
        ("ᏣᎳᎩ", "Cherokee"),
        ("𐎠𐎡", "Other"),
        ("12 + 3!", "Common"),
        ("👍🏽", "Common"),
        ("µ", "Common"),
        ("\uff41\uff42", "Latin"),
        ("aя", "Cyrillic"),  # a tie goes to the first in SCRIPTS
    ],
)
def test_script(text: str, name: str) -> None:
    assert script(text) == name


def test_scripts_are_unicode_names_named_once() -> None:
    import regex

    assert len(set(SCRIPTS)) == len(SCRIPTS)
    for name in SCRIPTS:
        regex.compile(rf"\p{{Script={name}}}")


SENTENCES = {
    "en": "A brown dog is running across the green grass with a ball in its mouth",
    "de": "Ein brauner Hund läuft mit einem Ball im Maul über die grüne Wiese",
    "fr": "Un chien brun court sur l'herbe verte avec une balle dans la gueule",
    "es": "Un perro marrón corre por la hierba verde con una pelota en la boca",
    "ru": "Коричневая собака бежит по зелёной траве с мячом во рту",  # noqa: RUF001
    "ja": "茶色の犬がボールをくわえて緑の芝生の上を走っている",
    "zh": "一只棕色的狗嘴里叼着球在绿色的草地上奔跑",
    "ko": "갈색 개가 공을 물고 푸른 잔디 위를 달리고 있다",
    "ar": "كلب بني يركض على العشب الأخضر وفي فمه كرة",
}


def test_language_of_sentences_in_known_languages() -> None:
    language = language_model()
    for code, sentence in SENTENCES.items():
        name, probability = language(sentence)
        assert name == code and 0.3 < probability <= 1
    for nothing in ("12345", "!!!", "👍"):
        assert language(nothing)[0] == "und"


def test_capitals_do_not_change_the_language() -> None:
    language = language_model(("en", "de", "fr", "es", "it", "pt", "nl", "pl", "tr", "sv", "cs", "id", "vi"))
    for title in ("Catwalk Women Bronze Toned Flats", "Vero Moda Women Black Top", "RED & TAYLOR MEN BLACK TIE"):
        assert facts(title, language)[4:6] == facts(title.lower(), language)[4:6]
        assert facts(title, language).language == "en"


def test_languages_can_be_restricted_and_unknown_ones_are_refused() -> None:
    language = language_model(("en", "de"))
    assert {language(sentence)[0] for sentence in SENTENCES.values()} <= {"en", "de"}
    assert language(SENTENCES["en"])[1] > language_model()(SENTENCES["en"])[1]
    with pytest.raises(RecipeError, match=r"'xx' is not known; choose from .*\ben\b"):
        CaptionText(languages=("en", "xx")).check()


def test_facts_count_the_caption_as_it_stands() -> None:
    def language(text: str) -> tuple[str, float]:
        return "en", 0.5

    assert facts("  Two  Words\n", language) == CaptionFacts("two words", 2, 13, "Latin", "en", 0.5, 0, 0, 0)
    assert facts(None, language) == CaptionFacts(reason="missing_caption")
    swollen = facts("\ufdfa" * (1 << 20), language)
    assert swollen.caption_normal is not None and len(swollen.caption_normal) <= (2 << 20) + 4096
    for blank in ("", "  \t\n", "\u200b\ufeff"):
        assert facts(blank, language) == CaptionFacts(reason="empty_caption")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\r\nc\x0c\x0b\x85d", (0, 0, 0)),
        ("a\x07\x1b[31mb\x7f\x9b\ufffd\ufffe", (6, 0, 0)),
        ("\u202eevil\u202c \u2066x\u2069", (0, 4, 0)),
        ("\u200fשלום\u200e \u061c", (0, 0, 0)),  # noqa: RUF001
        ("<script>alert('x')</script> &amp; &#39; &#x1F600;", (0, 0, 2)),
        ("<!-- c --> <!DOCTYPE html> <?php ?> <a href='x>y'> </a>", (0, 0, 5)),
        ("1 < 2 > 0, I <3 you, a<-b->c, R&D; AT&T", (0, 0, 0)),
        ("fish & chips &c; 5 &", (0, 0, 0)),
    ],
)
def test_what_is_no_text_is_counted(text: str, expected: tuple[int, int, int]) -> None:
    assert (control_characters(text), bidi_controls(text), markup(text)) == expected


def test_many_combining_marks_stay_linear_and_idempotent() -> None:
    marks = "a" + "\u0315\u0300" * 500
    normal = normal_form(marks)
    assert normal_form(normal) == normal
    assert normal.replace("\u034f", "").count("\u0315") == 500
    short = "a" + "\u0315\u0300" * 15
    assert normal_form(short) == unicodedata.normalize("NFKC", short)
    # By insertion a run this long takes hours.
    assert len(normal_form("\u0315\u0300" * 200_000)) >= 400_000
