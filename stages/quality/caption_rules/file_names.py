"""File names that stand where a caption should: what cameras, screenshot tools, hosts and uploads call their files."""

import re

NONE = "none"
SUFFIX = r"\.(?:jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?|svg|heic|heif|avif|psd|eps|raw|cr2|nef)"
NAMES = {
    # The names of the DCF standard and of phones: four letters or digits and a running number, or a time.
    "camera": r"""(?:img|imag|image|dsc[nf]?|_dsc|_mg|p\d{3}|pict|pic|photo|picture|mvi|mov|vid|gopr|dji|pxl|sam|cimg
        |hpim|kimg|imgp|sdc|wp|fullsizerender|received|inshot|snapseed|unnamed|download|image_?\d{0,2})
        (?:[_-]\d{3,9}|\d{4,9}|[_-]?\d{6,8}[_-]\d{4,9}|[_-]\d{8}[_-]wa\d{3,5})(?:[_-]\d{1,4}|\(\d{1,3}\))?
        |(?:19|20)\d{6}[_-]\d{4,9}|whatsapp image \d{4}-\d\d-\d\d at [\d.]{4,12}""",
    "screenshot": r"""screen[ _-]?(?:shots?|capture|grab)[ _-]{0,3}(?:from |at |on )?
        (?:\(\d{1,4}\)|\d{4,8}[\d_.:,-]{0,24}(?: (?:at )?\d[\d.:_-]{3,12}(?: [ap]m)?)?)""",
    # A digest or UUID; Facebook's three numbers; Tumblr's and Photobucket's uploads.
    "hash": r"""(?=[a-f]{0,40}\d)(?=\d{0,40}[a-f])[0-9a-f]{16,128}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}
        |\d{5,20}_\d{5,20}_\d{3,20}(?:_[a-z])?|tumblr_[a-z0-9_]{10,40}|[\w-]{1,80}_zps[a-z0-9]{6,12}""",
    "extension": rf"""[^\s/\\<>"']{{1,200}}{SUFFIX}""",
}
NAME = re.compile(
    rf"(?<![^\s/\\\"'(:=])(?:file:)?(?:{'|'.join(f'(?P<{kind}>(?:{names}))' for kind, names in NAMES.items())})"
    rf"(?:{SUFFIX})?(?![\w-])".replace("\n        ", "")
)
SLUG = re.compile(r"(?=.*[a-z])[^\s_-]{1,60}(?:[_-]{1,3}[^\s_-]{1,60}){2,60}")
"""One word of three parts and more, joined as file names and paths are: `a-red-ball`, `Team_2011_0043`."""


def file_name(lowered: str) -> tuple[str, int]:
    """The kind that takes most of a lower-cased text, and how many of its characters all file names take together.

    A web address is no file name (`url_share` has it), its last part may be one. Ties go by order in `NAMES`.
    """
    taken = dict.fromkeys(NAMES, 0)
    for found in NAME.finditer(lowered):
        taken[str(found.lastgroup)] += found.end() - found.start()
    if total := sum(taken.values()):
        return max(taken, key=lambda kind: taken[kind]), total
    if ("-" in lowered or "_" in lowered) and " " not in lowered and SLUG.fullmatch(lowered):
        return "slug", len(lowered)
    return NONE, 0
