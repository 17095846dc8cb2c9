"""What a caption says about itself: normal form, length, script, language, and what in it is no text.

The normal form is that of `stages/normal_form.py`. The language comes from langid.py's naive Bayes over byte n-grams
(Lui and Baldwin, 2012) as trained for py3langid, with probabilities normalised by length; the package, its model
included, is under the BSD 3-Clause licence. It is asked about small letters: it takes a Title In Capitals for German or
Polish. DataComp used fastText's lid.176 (CC BY-SA 3.0), which has to be downloaded and whose library is archived and
fails with NumPy 2.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa

from schemas.columns import (
    CAPTION,
    CAPTION_BIDI_CONTROLS,
    CAPTION_CONTROL_CHARS,
    CAPTION_MARKUP,
    CAPTION_NORMAL,
    CHARACTERS,
    LANGUAGE,
    LANGUAGE_PROBABILITY,
    SCRIPT,
    WORDS,
)
from schemas.errors import RecipeError
from stages.no_text import bidi_controls, control_characters, markup
from stages.normal_form import normal_form
from stages.stage import Scorer, Stage

# UAX #31, tables 5 (recommended) and 7 (limited use): the scripts people write captions in.
SCRIPTS = tuple(
    """Arabic Armenian Bengali Bopomofo Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hebrew
    Hiragana Kannada Katakana Khmer Lao Latin Malayalam Myanmar Oriya Sinhala Tamil Telugu Thaana Thai Tibetan
    Adlam Balinese Bamum Batak Canadian_Aboriginal Chakma Cham Cherokee Hanifi_Rohingya Javanese Kayah_Li Lepcha Limbu
    Lisu Mandaic Meetei_Mayek Miao New_Tai_Lue Newa Nko Nyiakeng_Puachue_Hmong Ol_Chiki Osage Saurashtra Sundanese
    Syloti_Nagri Syriac Tai_Le Tai_Tham Tai_Viet Tifinagh Vai Wancho Yi Mongolian""".split()  # noqa: SIM905 - 65 names, one a line otherwise
)
COMMON, OTHER = "Common", "Other"
"""No letter belongs to one script (digits, signs, emoji); a script outside SCRIPTS, e.g. a historic one."""
UNDETERMINED = "und"
"""ISO 639-2's code for a language nobody can tell."""
NORMAL_CHARACTERS = 1 << 20
"""The normal form is that of this many leading characters. It is at most twice as long and `NORMAL_ROOM`: compatibility
forms of one character can have 18."""
NORMAL_ROOM = 4096
LANGUAGE_CHARACTERS = 4000
"""The language is judged on this many leading characters: beyond them it does not change and costs 0.1 s a megabyte."""

Language = Callable[[str], tuple[str, float]]


class CaptionFacts(NamedTuple):
    """One caption's columns, in the order of `CaptionText.writes` and the reason; None where there is no caption."""

    caption_normal: str | None = None
    words: int | None = None
    characters: int | None = None
    script: str | None = None
    language: str | None = None
    language_probability: float | None = None
    caption_control_chars: int | None = None
    caption_bidi_controls: int | None = None
    caption_markup: int | None = None
    reason: str | None = None


def script(text: str) -> str:
    """The script of most letters; ties go to the first in `SCRIPTS`, `Common` where no letter has one."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else COMMON
    counts = Counter(map(letter_script, text))
    counts.pop(COMMON, None)
    order = {name: place for place, name in enumerate((*SCRIPTS, OTHER))}
    return min(counts, key=lambda name: (-counts[name], order[name]), default=COMMON)


@lru_cache(maxsize=1 << 16)
def letter_script(letter: str) -> str:
    """Unicode's Script property of one letter; `Common` for what is no letter or belongs to many scripts."""
    patterns = _patterns()
    if not patterns.letters(letter):
        return COMMON
    found = patterns.one_of(letter)
    return SCRIPTS[found.lastindex - 1] if found else OTHER


def facts(caption: str | None, language: Language) -> CaptionFacts:
    """Everything about one caption; lengths are those of the caption as it stands."""
    if caption is None:
        return CaptionFacts(reason="missing_caption")
    normal = normal_form(caption.strip()[:NORMAL_CHARACTERS])[: 2 * len(caption) + NORMAL_ROOM]
    if not normal:
        return CaptionFacts(reason="empty_caption")
    name, probability = language(caption[:LANGUAGE_CHARACTERS].lower())
    strange = (control_characters(caption), bidi_controls(caption), markup(caption))
    return CaptionFacts(normal, len(caption.split()), len(caption), script(caption), name, probability, *strange)


def language_model(languages: tuple[str, ...] = ()) -> Language:
    """Text -> (ISO 639-1 code, probability among the languages compared), by py3langid.

    Args:
        languages: codes to choose among; all two-letter codes by default, because its many small languages of three
            letters take short English captions (4 % of web alt-texts go to Nigerian Pidgin).

    Raises:
        RecipeError: a language it was not trained on.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = [label for label in identifier.labels if len(label) == 2]
    if unknown := sorted(set(languages) - set(known)):
        raise RecipeError(f"caption_text: language {unknown[0]!r} is not known; choose from {', '.join(sorted(known))}")
    identifier.set_languages(languages or known)
    # Without features all are equally likely, a language that is listed under two scripts twice as much: no answer.
    identifier.min_confidence = 2.5 / len(identifier.nb_classes) if len(identifier.nb_classes) > 2 else 0.0
    return identifier.classify  # type: ignore[no-any-return]


class CaptionText(Stage):
    """Normal form, words, characters, script and language of the caption, and counts of what is no text in it.

    No caption gets a reason. Control characters, bidirectional controls and markup get none: right-to-left captions may
    need them, and `at_most` on the counts decides.
    """

    version: ClassVar[int] = 4
    kind: Literal["caption_text"] = "caption_text"
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes to choose among; default: all that py3langid knows."""

    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION,)
    writes: ClassVar[tuple[pa.Field, ...]] = (
        CAPTION_NORMAL,
        WORDS,
        CHARACTERS,
        SCRIPT,
        LANGUAGE,
        LANGUAGE_PROBABILITY,
        CAPTION_CONTROL_CHARS,
        CAPTION_BIDI_CONTROLS,
        CAPTION_MARKUP,
    )
    batch_rows: ClassVar[int] = 4096

    def check(self) -> None:
        """Refuse a language that the model does not know."""
        if self.languages:
            language_model(self.languages)

    def open(self) -> Scorer:
        """Load the language model (0.5 s, 30 MB)."""
        language = language_model(self.languages)

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            captions = batch[CAPTION.name].to_pylist()
            known = {caption: facts(caption, language) for caption in dict.fromkeys(captions)}
            rows = [known[caption] for caption in captions]
            schema = self.returns()
            columns = list(zip(*rows, strict=True)) or [()] * len(schema)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            return pa.record_batch(arrays, schema)

        return score


class _Patterns(NamedTuple):
    letters: Callable[[str], Any]
    one_of: Callable[[str], Any]


@cache
def _patterns() -> _Patterns:
    import regex

    one_of = "|".join(rf"(\p{{Script={name}}})" for name in SCRIPTS)
    letters = regex.compile(r"\p{L}(?<!\p{Script=Common}|\p{Script=Inherited})")
    return _Patterns(letters.fullmatch, regex.compile(one_of).fullmatch)
