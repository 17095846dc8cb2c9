"""Every per-sample column, declared once: name, Arrow type, meaning, unit and range.

A column is a `pa.Field`, so `pa.schema(stage.writes)` is the schema of what a stage returns.
Null means "could not be computed"; the stage's reason column says why. NaN is never a value.
"""

import pyarrow as pa

COLUMNS: dict[str, pa.Field] = {}


def column(
    name: str,
    dtype: pa.DataType,
    meaning: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
) -> pa.Field:
    """Declare a per-sample column; `low` and `high` are inclusive bounds of its values.

    Raises:
        ValueError: the name is already declared with another type or meaning.
    """
    facts = {"meaning": meaning, "unit": unit}
    if low is not None:
        facts["low"] = repr(low)
    if high is not None:
        facts["high"] = repr(high)
    field = pa.field(name, dtype, nullable=True, metadata=facts)
    known = COLUMNS.setdefault(name, field)
    if not known.equals(field, check_metadata=True):
        raise ValueError(f"column {name!r} is declared twice, as {known} and as {field}")
    return known


def bounds(field: pa.Field) -> tuple[float | None, float | None]:
    """The declared inclusive range of a column; None where it is open."""
    facts = field.metadata or {}
    low, high = facts.get(b"low"), facts.get(b"high")
    return (None if low is None else float(low), None if high is None else float(high))


def meaning(field: pa.Field) -> str:
    """One sentence on what a column holds, with its unit."""
    facts = field.metadata or {}
    unit = facts.get(b"unit", b"").decode()
    words: str = facts.get(b"meaning", b"").decode()
    return f"{words} [{unit}]" if unit else words


# What ingest provides: every stage may read these.
IMAGE = column("image", pa.large_binary(), "the image file's bytes as they stand in the shard")
CAPTION = column("caption", pa.string(), "the sample's caption as it stands in the shard")
KEY = column("key", pa.string(), "the sample's key inside its shard")
IMAGE_HASH = column("image_hash", pa.string(), "XXH3-128 of the image's bytes, 32 hex digits")
CONTENT_HASH = column(
    "content_hash", pa.string(), "XXH3-128 of the name suffix and bytes of every member, 32 hex digits"
)
PROVIDED = (IMAGE, CAPTION, KEY, IMAGE_HASH, CONTENT_HASH)

# quality/image_header
IMAGE_FORMAT = column("image_format", pa.string(), "decoder that recognised the content, e.g. JPEG, PNG, WEBP")
WIDTH_PX = column("width_px", pa.int32(), "width as shown, after EXIF rotation", unit="px", low=1)
HEIGHT_PX = column("height_px", pa.int32(), "height as shown, after EXIF rotation", unit="px", low=1)
MIN_SIDE_PX = column("min_side_px", pa.int32(), "shorter side", unit="px", low=1)
ASPECT_RATIO = column("aspect_ratio", pa.float32(), "longer over shorter side", low=1)

# quality/caption_text
CAPTION_NORMAL = column(
    "caption_normal", pa.string(), "caption in NFKC, case-folded, whitespace collapsed, control characters removed"
)
WORDS = column("words", pa.int32(), "whitespace-separated words of the caption", low=0)
CHARACTERS = column("characters", pa.int32(), "code points of the caption", low=0)
SCRIPT = column("script", pa.string(), "most frequent Unicode script of the caption's letters, e.g. Latin, Han")
LANGUAGE = column("language", pa.string(), "most probable language of the caption, ISO 639-1")
LANGUAGE_PROBABILITY = column(
    "language_probability", pa.float32(), "probability of that language among those known", low=0, high=1
)

CAPTION_CONTROL_CHARS = column(
    "caption_control_chars",
    pa.int32(),
    "control characters and stray code points of the caption, tab and line ends aside",
    low=0,
)
CAPTION_BIDI_CONTROLS = column(
    "caption_bidi_controls", pa.int32(), "embedding, override and isolate controls, which reorder what is shown", low=0
)
CAPTION_MARKUP = column("caption_markup", pa.int32(), "HTML or XML tags, comments and declarations", low=0)

# duplicates/perceptual_hash
PHASH = column("phash", pa.uint64(), "64-bit perceptual hash: signs of the low DCT frequencies around their median")
GREY_DEVIATION = column(
    "grey_deviation",
    pa.float32(),
    "standard deviation of the 32 x 32 grey image; flat images have no usable hash",
    low=0,
    high=128,
)

# alignment/clip
IMAGE_EMBEDDING = column("image_embedding", pa.list_(pa.float16()), "unit-norm image embedding, (d,)")
TEXT_EMBEDDING = column("text_embedding", pa.list_(pa.float16()), "unit-norm caption embedding, (d,)")
CLIP_SCORE = column("clip_score", pa.float32(), "cosine of image and caption embedding", low=-1.001, high=1.001)

# quality/image_detectors
SHARPNESS = column(
    "sharpness", pa.float32(), "variance of the Laplacian of the grey image at 224 x 224 px; low is blurred", low=0
)
CONSTANT_SHARE = column(
    "constant_share", pa.float32(), "share of the smoothed grey image that is one tone; 1 is blank", low=0, high=1
)
ENTROPY_BITS = column("entropy_bits", pa.float32(), "Shannon entropy of the grey histogram", unit="bits", low=0, high=8)
BORDER_SHARE = column(
    "border_share", pa.float32(), "share of the area that is a uniform frame or bars around the picture", low=0, high=1
)
EXIF_ROTATION_DEGREES = column(
    "exif_rotation_degrees",
    pa.int16(),
    "clockwise turn that EXIF asks for: 0, 90, 180 or 270",
    unit="degrees",
    low=0,
    high=270,
)
EXIF_MIRRORED = column("exif_mirrored", pa.bool_(), "EXIF asks for a mirror image, before the turn")
TEXT_COVERAGE = column("text_coverage", pa.float32(), "share of the area covered by rows of text", low=0, high=1)
SCREENSHOT_LIKENESS = column(
    "screenshot_likeness",
    pa.float32(),
    "few tones and many pieces of text, as on a screen, slide or page",
    low=0,
    high=1,
)
COLLAGE_LIKENESS = column(
    "collage_likeness", pa.float32(), "share of a side along which a straight seam parts two pictures", low=0, high=1
)
