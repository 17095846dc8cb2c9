"""Every per-sample column, declared once: name, Arrow type, meaning, unit and range.

A column is a `pa.Field`, so `pa.schema(stage.writes)` is the schema of what a stage returns.
Null means "could not be computed"; the stage's reason column says why. NaN is never a value.
"""

import re

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
    free_text: bool = False,
) -> pa.Field:
    """Declare a per-sample column.

    `low` and `high` are inclusive bounds of its values; those of `free_text` are words of the pool, which no report
    lists.

    Raises:
        ValueError: the name is already declared with another type or meaning.
    """
    field = _field(name, dtype, meaning, unit, low, high)
    if free_text:
        field = field.with_metadata({**field.metadata, b"free_text": b"1"})
    known = COLUMNS.setdefault(name, field)
    if not known.equals(field, check_metadata=True):
        raise ValueError(f"column {name!r} is declared twice, as {known} and as {field}")
    return known


def named_column(
    name: str, dtype: pa.DataType, meaning: str, *, low: float | None = None, high: float | None = None
) -> pa.Field:
    """A column whose name a recipe chooses, so that it is declared by the stage that writes it and not here.

    Raises:
        ValueError: the name is one that is declared here, or not made of lower-case letters, digits and `_`.
    """
    if name in COLUMNS:
        raise ValueError(f"column {name!r} is one of cuvee's own; choose another name")
    if re.fullmatch("[a-z][a-z0-9_]*", name) is None:
        raise ValueError(f"column {name!r}: expected lower-case letters, digits and `_`, a letter first")
    return _field(name, dtype, meaning, "", low, high)


def _field(name: str, dtype: pa.DataType, meaning: str, unit: str, low: float | None, high: float | None) -> pa.Field:
    facts = {"meaning": meaning, "unit": unit}
    if low is not None:
        facts["low"] = repr(low)
    if high is not None:
        facts["high"] = repr(high)
    return pa.field(name, dtype, nullable=True, metadata=facts)


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
# What an export provides where a rule merges captions.
CAPTIONS = column("captions", pa.list_(pa.string()), "the sample's caption, then those of samples merged into it")

# quality/image_header
IMAGE_FORMAT = column("image_format", pa.string(), "decoder that recognised the content, e.g. JPEG, PNG, WEBP")
WIDTH_PX = column("width_px", pa.int32(), "width as shown, upright by EXIF or XMP", unit="px", low=1)
HEIGHT_PX = column("height_px", pa.int32(), "height as shown, upright by EXIF or XMP", unit="px", low=1)
MIN_SIDE_PX = column("min_side_px", pa.int32(), "shorter side", unit="px", low=1)
ASPECT_RATIO = column("aspect_ratio", pa.float32(), "longer over shorter side", low=1)

# quality/caption_text
CAPTION_NORMAL = column(
    "caption_normal",
    pa.string(),
    "caption in NFKC, case-folded, whitespace collapsed, invisible characters removed",
    free_text=True,
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

# quality/caption_rules: shares are of what the caption shows, white space aside
DIGIT_SHARE = column("digit_share", pa.float32(), "share of the caption's characters that are digits", low=0, high=1)
SYMBOL_SHARE = column(
    "symbol_share",
    pa.float32(),
    "share of the caption's characters that are neither letters nor digits: punctuation, signs, emoji",
    low=0,
    high=1,
)
UPPERCASE_SHARE = column(
    "uppercase_share", pa.float32(), "share of capitals among the caption's letters that have a case", low=0, high=1
)
URL_SHARE = column("url_share", pa.float32(), "share of the caption that web addresses take", low=0, high=1)
TOP_NGRAM_SHARE = column(
    "top_ngram_share",
    pa.float32(),
    "largest share that one repeated run of 2, 3 or 4 words takes of the caption's words",
    low=0,
    high=1,
)
REPEATED_NGRAM_SHARE = column(
    "repeated_ngram_share",
    pa.float32(),
    "share of the caption's words that stands in runs which occur more than once",
    low=0,
    high=1,
)
BOILERPLATE = column(
    "boilerplate",
    pa.string(),
    "kind of page furniture in the caption: click, notice, machine, placeholder, share, shop, stock or none",
)
BOILERPLATE_SHARE = column(
    "boilerplate_share", pa.float32(), "share of the caption that page furniture takes", low=0, high=1
)
FILE_NAME = column(
    "file_name",
    pa.string(),
    "kind of file name in the caption: camera, screenshot, hash, extension, slug or none",
)
FILE_NAME_SHARE = column("file_name_share", pa.float32(), "share of the caption that file names take", low=0, high=1)
TRUNCATED_ENDING = column(
    "truncated_ending",
    pa.string(),
    "how the caption breaks off: ellipsis, cut_length, open_bracket, dangling or none",
)

# quality/caption_safety
CAPTION_FLAGS = column(
    "caption_flags",
    pa.list_(pa.string()),
    "what was found in the caption, most serious first: jailbreak, score_request, pii_card, pii_email, pii_phone, "
    "chat_markup, encoded_run, instruction_like",
)
CAPTION_FINDINGS = column("caption_findings", pa.int32(), "passages of the caption that were flagged", low=0)

# duplicates/perceptual_hash
PHASH = column("phash", pa.uint64(), "64-bit perceptual hash: signs of the low DCT frequencies around their median")
PHASH_TURNED = column(
    "phash_turned",
    pa.list_(pa.uint64()),
    "eight perceptual hashes: as it is, mirrored left to right, upside down, both; then the same of its transpose",
)
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

# alignment/negcliploss
NEGCLIPLOSS = column(
    "negcliploss",
    pa.float32(),
    "negCLIPLoss: the CLIP score less what image and caption score with other pairs; higher is better",
    high=0,
)

# alignment/calibrated_clip_score
CALIBRATED_CLIP_SCORE = column(
    "calibrated_clip_score",
    pa.float32(),
    "CLIP score in robust deviations above the source's own mismatched pairs, whose median is 0",
)

# alignment/alignment_level
ALIGNMENT_LEVEL = column(
    "alignment_level", pa.int8(), "bucket of the CLIP score among the pool's quantiles, 1 is the worst", low=1, high=100
)

# alignment/visualness
VISUALNESS = column(
    "visualness",
    pa.float32(),
    "1 less the cosine of the caption's embedding and that of an image of nothing",
    low=-0.001,
    high=2.001,
)

# target/normsim
NORMSIM_2 = column(
    "normsim_2", pa.float32(), "root of the sum of squared dot products with the target's image embeddings", low=0
)
NORMSIM_INF = column(
    "normsim_inf", pa.float32(), "largest absolute dot product with a target image's embedding", low=0, high=1.002
)
# quality/mlm_filter
MLM_IMAGE_TEXT_MATCHING = column(
    "mlm_image_text_matching", pa.float32(), "whether the caption is about what the image shows", low=0, high=100
)
MLM_OBJECT_DETAIL = column(
    "mlm_object_detail", pa.float32(), "whether the details that the caption gives hold in the image", low=0, high=100
)
MLM_CAPTION_QUALITY = column(
    "mlm_caption_quality", pa.float32(), "how good the caption is as a piece of text", low=0, high=100
)
MLM_SEMANTIC_UNDERSTANDING = column(
    "mlm_semantic_understanding", pa.float32(), "what the caption tells beyond what is seen", low=0, high=100
)
MLM_INVALID = column("mlm_invalid", pa.int32(), "how many of the four answers were none", low=0, high=4)

# alignment/caption_likelihood
CAPTION_NLL_IMAGE = column(
    "caption_nll_image", pa.float32(), "mean loss of the caption's tokens given the image", unit="nats per token", low=0
)
CAPTION_NLL_TEXT = column(
    "caption_nll_text",
    pa.float32(),
    "mean loss of the caption's tokens without it",
    unit="nats per token",
    low=0,
)
VISUAL_DEPENDENCE = column(
    "visual_dependence", pa.float32(), "what the image tells about the caption, per token", unit="nats per token"
)
CAPTION_PMI = column("caption_pmi", pa.float32(), "what the image tells about the whole caption", unit="nats")
CAL_WEIGHT = column("cal_weight", pa.float32(), "mean of CAL's clamped token weights", low=1, high=5)
CAPTION_TOKENS = column("caption_tokens", pa.int32(), "tokens of the caption that were scored", low=1)
# alignment/tmars
CLIP_SCORE_MASKED = column(
    "clip_score_masked", pa.float32(), "cosine of the image less its text and the caption", low=-1.001, high=1.001
)
MASKED_AREA = column("masked_area", pa.float32(), "share of the image that is text and was painted over", low=0, high=1)
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
    "clockwise turn that EXIF, or else XMP, asks for: 0, 90, 180 or 270",
    unit="degrees",
    low=0,
    high=270,
)
EXIF_MIRRORED = column("exif_mirrored", pa.bool_(), "EXIF, or else XMP, asks for a mirror image, before the turn")
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
