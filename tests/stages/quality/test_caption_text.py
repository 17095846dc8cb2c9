"""Caption facts against Unicode's own rules, and the language against sentences whose language is known."""

import unicodedata

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
