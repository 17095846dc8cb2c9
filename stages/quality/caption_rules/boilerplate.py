"""Page furniture that ends up in captions: what a site says to its visitors instead of what an image shows.

The phrases of `notice` are those by which C4 (arXiv:1910.10683, section 2.2) drops lines and pages, `share` and
`click` follow RefinedWeb's line-wise rules (arXiv:2306.01116, appendix G.2), the others are what fills alt attributes:
agencies' stock lines, shops' calls, captions written by machines, words that stand for an image. English, but for
agencies.
"""

import re

NONE = "none"
PHRASES = {
    "click": r"""(?:click|tap|hover|roll ?over|mouse ?over)(?: (?:here|on|over))?(?: (?:the|this|an|any))?
        (?: (?:image|photo|picture|thumbnail|link|button|map|cover))?
        (?: (?:to|for)(?: an?| the| more)? (?:enlarged?|zoom|view|see|show|expand|open|play|download|visit|go|return
        |redeem|larger|bigger|full|high|hi-?res|more|info|information|details|read)\b| (?:below|above)\b)
        |click here\b|(?:view|see|show) (?:larger|bigger|full[- ]size|hi-?res) (?:image|photo|picture|version|size)s?
        |(?:enlarge|zoom)(?: in)?(?: on)?(?: (?:the|this))? (?:image|photo|picture)
        |opens? in (?:a )?new (?:window|tab)|(?:read|learn|load|show) more(?=$|[.:>»|])|continue reading
        |skip to (?:main )?content|scroll to top|back to top""",
    "notice": r"""(?:we|this (?:web)?site|our (?:web)?site) uses? cookies|uses? of cookies|accept (?:all )?cookies
        |cookie (?:policy|settings|notice|consent|preferences)|by continuing to (?:use|browse)
        |terms (?:of|and conditions of) (?:use|service|sale)|terms (?:and|&) conditions|privacy policy
        |all rights reserved|(?:enable|requires?|turn on) javascript|javascript (?:is|must|has)\b|lorem ipsum
        |page not found|access denied|403 forbidden|404 error|your browser does not support""",
    "machine": r"""(?:image|photo|this) may contain\b|may be an? (?:image|black-and-white image|illustration|meme) of
        |no photo description available|description automatically generated|a picture containing\b
        |this image has an empty alt attribute|its file name is\b|auto(?:matically)?[- ]generated (?:alt|description)
        |image (?:preview|result) for\b|google image result""",
    "placeholder": r"""(?:no|missing|default) (?:image|photo|picture|thumbnail|cover)
        (?: (?:available|found|provided|yet))?\b
        |(?:image|photo|picture|cover) (?:not|un) ?(?:available|found|provided)
        |(?:image|photo|picture)s? (?:coming|available) soon|image placeholder|placeholder image""",
    "share": r"""(?:share|pin|tweet|save|post) (?:this |it )?(?:on|to|via|with) (?:facebook|twitter|pinterest|whatsapp
        |linkedin|instagram|reddit|tumblr|email|friends)|pin it\b|(?:follow|find|like|join) us (?:on|at)\b
        |subscribe (?:now|to|for)\b|sign up (?:now|for|to)\b|(?:leave|post) a (?:comment|reply)|log ?in to\b
        |sponsored (?:by|post)|^advertis(?:e)?ment\W{0,8}$""",
    "shop": r"""add to (?:cart|basket|bag|wish ?list|favou?rites)|(?:buy|shop|order|call|book|get it|download) now\b
        |free (?:shipping|delivery|download)|out of stock|sold out|best (?:price|seller)|on sale now
        |in stock\b(?! (?:photo|photograph|image|picture|footage|video|illustration|vector))
        |limited time (?:offer|only)|money[- ]back guarantee|lowest prices?\b""",
    "stock": r"""(?:royalty[- ]free|rights[- ]managed)
        (?: (?:stock )?(?:image|photo|photograph|picture|vector|illustration|video|clip)s?)?
        |(?:free )?stock[- ](?:photograph(?:y|s)?|photos?|images?|pictures?|vectors?|illustrations?|videos?|footage
        |clip ?art)
        |(?:shutter|i)stock(?:photo)?\b|dreamstime|depositphotos|getty images|123rf|fotolia|adobe ?stock
        |bigstock(?:photo)?|alamy\b|stockfoto\b|stock fotografie|stockfotos\b|foto stock\b|vector image\b
        |premium (?:vector|photo|psd)\b|foto de stock""",
}
STANDS_FOR_AN_IMAGE = re.compile(
    r"(?:(?:the |main |featured |product |profile |header |hero |background |blog |post |my |default |cover |gallery )?"
    r"(?:images?|img|photos?|photographs?|pictures?|pics?|thumb(?:nail)?s?|logo|banner|icon|avatar|graphic|slide"
    r"|slider|cover)"
    r"|untitled|unnamed|placeholder|spacer|loading|blank|default|none|null|undefined|n/?a|alt(?: text)?|caption|title"
    r"|test)"
    r"(?:[ #_-]{0,2}\(?\d{1,5}\)?(?: (?:of|/) \d{1,5})?)?[.:!]{0,3}"
)
FURNITURE = re.compile(
    rf"\b(?:{'|'.join(f'(?P<{kind}>{phrases})' for kind, phrases in PHRASES.items())})".replace("\n        ", "")
)


def boilerplate(lowered: str) -> tuple[str, int]:
    """The kind that takes most of a lower-cased text, and how many of its characters all kinds take together.

    A text that is nothing but a word for an image, numbered or not, is a `placeholder`. Ties go by order in `PHRASES`.
    """
    if len(lowered) < 60 and STANDS_FOR_AN_IMAGE.fullmatch(lowered):
        return "placeholder", len(lowered)
    taken = dict.fromkeys(PHRASES, 0)
    for found in FURNITURE.finditer(lowered):
        taken[str(found.lastgroup)] += found.end() - found.start()
    total = sum(taken.values())
    return (max(taken, key=lambda kind: taken[kind]), total) if total else (NONE, 0)
