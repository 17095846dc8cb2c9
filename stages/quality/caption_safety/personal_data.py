"""People's data in a caption: e-mail addresses, telephone numbers, payment cards.

E-mail: a local part and a host under an alphabetic top-level domain, `[at]` and `(dot)` included. Telephone: E.164 with
its plus sign, and those national forms that are more than a group of digits: North America's 3-3-4 with valid area
codes, France's five pairs, Britain's and others' trunk zero with eleven digits, an area code with its zero before a
slash, any number behind a word like `tel` or `call`. Cards: ISO/IEC 7812 numbers of 14 to 19 digits with an issuer's
prefix and length, a right check digit (Luhn), grouped as cards are. A bare group of ten digits is a product number more
often than a telephone and is left alone.
"""

import re
from itertools import pairwise

AT = re.compile(r" ?[\[({<] ?(?:at|@) ?[\])}>] ?")
DOT = re.compile(r" ?[\[({<] ?(?:dot|\.) ?[\])}>] ?")
LOCAL = "abcdefghijklmnopqrstuvwxyz0123456789._%+-'"
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,5}([a-z]{2,24})(?![\w@-])")
FILE_SUFFIXES = {"png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "tif", "tiff", "ico", "pdf", "html", "php", "mp4"}

SEVEN_DIGITS = re.compile(r"\d(?:[ ().+/-]{0,3}\d){6}")
GAP = r"[ ().-]{0,3}"
SLASH = r"\)? ?/ ?"
"""Between an area code and the rest of a number: one, or it is a date or a list."""
END = r"(?!\w|[.,-]\d|/\d(?!(?:[ .-]?\d){6}))"
"""Of a number: behind a slash another one may follow, seven digits or more."""
PHONE = re.compile(
    # E.164: a plus sign and 8 to 15 digits.
    rf"(?<![\w.,+])\+ ?\(?[1-9](?:{GAP}\d){{7,14}}(?![\w%]|[.,/-]\d)"
    rf"|(?<![\w.,+])\+ ?\(?[1-9](?:{GAP}\d){{3,6}}{SLASH}\d(?:{GAP}\d){{4,8}}(?![\w%]|[.,/-]\d)"
    # North America: (NXX) NXX-XXXX, NXX-NXX-XXXX, NXX.NXX.XXXX, with or without 1.
    r"|(?<![\w.+/#$-])(?:1[ .-])?(?:\([2-9]\d\d\) ?[2-9]\d\d[ .-]|[2-9]\d\d-[2-9]\d\d-|[2-9]\d\d\.[2-9]\d\d\.)"
    rf"\d{{4}}{END}"
    # France and neighbours: five pairs.
    r"|(?<![\w.,+/-])(?<!\d )(?P<pairs>0[1-9](?P<gap>[ .-])\d\d(?:(?P=gap)\d\d){3})(?!\w|[ .,/-]\d)"
    # Britain, Ireland, Germany, ...: a trunk zero and eleven digits; mobiles in one piece.
    r"|(?<![\w.,+/#-])(?<!\d )(?:\(?0\d{2}\)?[ -]\d{4}[ -]\d{4}|\(?0\d{3}\)?[ -]\d{3}[ -]\d{4}"
    r"|\(?0\d{4}\)?[ -]\d{3} ?\d{3}|07\d{9})(?!\w|[ .,/-]\d)"
    # Germany and neighbours: an area code with its trunk zero, a slash, ten digits or more in all.
    rf"|(?<![\w.,+/#-])(?<!\d )(?P<slashed>\(?0[1-9]\d(?:{SLASH}\d|\d\d?{SLASH})\d(?:[ .-]?\d){{5,7}})"
    r"(?!\w|[ .,/-]\d)"
)
CALLED = re.compile(
    r"(?<!\w)(?:tel|telephone|phone|ph|call|cell|mobile|mob|fax|whats ?app|sms|text|hotline|helpline|contact|viber"
    r"|telegram|telefon|telefono|telefax|handy|rufnummer)\b(?: ?(?:us|me|no|nr|number|at|on|now|today|or))*"
    # Behind `@`, unless it is that of an address.
    r"(?:[ .:;#=|/-]{0,4}|[ :]{0,2}@[ :]{0,2}(?![^\s@]{0,60}\.[a-z]))"
    rf"(?P<number>\(?\d(?:[ ().-]{{0,2}}\d){{6,13}}|\(?0(?:[ ().-]{{0,2}}\d){{1,5}}{SLASH}\d(?:[ .-]?\d){{4,8}}"
    rf"|\(?[1-9]\d{{1,3}}{SLASH}\d(?:[ .-]?\d){{5,7}}){END}(?! ?(?:mah|px|gb|mb|mm|cm|kg|pcs)\b)"
)
DATE = re.compile(r"(?:19|20)\d\d[ ./-]\d\d?[ ./-]\d\d?\b|\d\d?[./-]\d\d?[ ./-](?:19|20)\d\d\b")

CARD = re.compile(r"(?<![\w.,/=_+-])\d(?:[ -]?\d){13,18}(?!\w|[-./_,]\w)")
GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (4, 4, 4, 4, 1), (6, 13)}
ISSUERS = (
    (re.compile(r"4"), (16, 19)),  # Visa
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"6011|64[4-9]|65|62|81"), (16, 17, 18, 19)),  # Discover, UnionPay
    (re.compile(r"30[0-5]|309|3[689]"), (14, 16)),  # Diners Club
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),  # JCB
)


def emails(lowered: str) -> int:
    """E-mail addresses in a lower-cased plain text; `icon@2x.png` is a file."""
    if "@" not in lowered and not AT.search(lowered):
        return 0
    text = DOT.sub(".", AT.sub("@", lowered))
    return sum(_is_email(text, found.start()) for found in re.finditer("@", text))


def _is_email(text: str, at: int) -> bool:
    before = text[max(0, at - 65) : at]
    local = before[len(before.rstrip(LOCAL)) :]
    host = HOST.match(text, at + 1)
    return bool(local.strip(".'-")) and len(local) <= 64 and host is not None and host[1] not in FILE_SUFFIXES


def phones(lowered: str) -> int:
    """Telephone numbers in a lower-cased plain text."""
    if not SEVEN_DIGITS.search(lowered):
        return 0
    national = sum(
        not _counts_up(found["pairs"]) and (found["slashed"] is None or _is_called(found["slashed"]))
        for found in PHONE.finditer(lowered)
    )
    return national or sum(_is_called(found["number"]) for found in CALLED.finditer(lowered))


def _counts_up(pairs: str | None) -> bool:
    """`01 02 03 04 05` is a list of years or sizes."""
    numbers = [int(pair) for pair in re.findall(r"\d\d", pairs or "")]
    return bool(numbers) and all(later - earlier in (0, 1) for earlier, later in pairwise(numbers))


def _is_called(number: str) -> bool:
    """Behind a telephone's word, or with a slash: no date, no list of years, no month of a year."""
    groups = re.findall(r"\d+", number.rpartition("/")[2])
    return not DATE.match(number) and not all(re.fullmatch(r"(?:19|20)\d\d", group) for group in groups)


def cards(text: str) -> int:
    """Payment card numbers in a plain text."""
    if not SEVEN_DIGITS.search(text):
        return 0
    return sum(_is_card(found[0]) for found in CARD.finditer(text))


def _is_card(written: str) -> bool:
    groups = re.split("[ -]", written)
    number = "".join(groups)
    if len(groups) > 1 and (tuple(map(len, groups)) not in GROUPS or len(set(re.findall("[ -]", written))) > 1):
        return False
    issued = any(prefix.match(number) and len(number) in lengths for prefix, lengths in ISSUERS)
    return issued and luhn(number)


def luhn(number: str) -> bool:
    """Whether the check digit of ISO/IEC 7812-1 is right."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(number)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0
