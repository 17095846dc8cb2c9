"""The hash: 32 x 32 grey pixels, DCT-II, the 8 x 8 lowest frequencies against their median.

The definition and the bit order are those of the `ImageHash` package (`int(str(imagehash.phash(image)), 16)`): grey
first, then Lanczos to 32 x 32; DC takes part in the median; a bit is set when its coefficient is greater; row after
row (rows are vertical frequencies), most significant bit first. `imagededup` differs: it leaves DC out of the median
and sets a bit on equality. Unlike both, the image stands upright by EXIF or XMP first, and a JPEG is decoded at
a reduced scale, see `luma.py`; `decode: full` gives the packages' bits for JPEG too.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import GREY_DEVIATION, IMAGE, PHASH, PHASH_TURNED
from stages.duplicates.perceptual_hash.luma import jpeg_luma
from stages.stage import Scorer, Stage

if TYPE_CHECKING:
    from PIL import Image

SIDE_PX = 32
LOW_FREQUENCIES = 8
Hashes = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]
Frequencies = npt.NDArray[np.float64]


def grey_pixels(picture: "Image.Image") -> Grey:
    """(32, 32) luma (ITU-R 601) of the whole picture; transparency is dropped, colours below it show."""
    from PIL import Image

    return np.asarray(picture.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def reduced(luma: Grey) -> Grey:
    """(32, 32) of (height, width) luma."""
    from PIL import Image

    return grey_pixels(Image.fromarray(luma))


def low_frequencies(grey: Grey) -> Frequencies:
    """(n, 8, 8) of the DCT-II of (n, 32, 32) grey pixels, vertical frequencies first."""
    from scipy.fft import dct

    found: Frequencies = dct(dct(grey.astype(np.float64), axis=1), axis=2)[:, :LOW_FREQUENCIES, :LOW_FREQUENCIES]
    return found


def hashes_of(low: Frequencies) -> Hashes:
    """(n,) hashes of (n, 8, 8) frequencies; 32 of 64 bits are set unless coefficients equal the median."""
    low = low.reshape(len(low), LOW_FREQUENCIES**2)
    packed = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    return np.ascontiguousarray(packed).view(">u8")[:, 0].astype(np.uint64)


def perceptual_hashes(grey: Grey) -> Hashes:
    """(n,) hashes of (n, 32, 32) grey pixels."""
    return hashes_of(low_frequencies(grey))


def turned_hashes(low: Frequencies) -> Hashes:
    """(n, 8) hashes of the image as it is, mirrored left to right, upside down, both; and the same of its transpose.

    Mirroring an axis changes the sign of its odd frequencies, transposing exchanges the axes: no pixel is touched.
    These are the four turns by 90 degrees and their mirror images.
    """
    odd = np.where(np.arange(LOW_FREQUENCIES) % 2, -1.0, 1.0)
    across, down = odd[None, :], odd[:, None]
    ways = [each * sign for each in (low, low.transpose(0, 2, 1)) for sign in (1.0, across, down, across * down)]
    return np.stack([hashes_of(way) for way in ways], axis=1)


class PerceptualHash(Stage):
    """Writes the 64-bit hash and the deviation of the grey pixels, by which a rule knows flat images."""

    kind: Literal["perceptual_hash"] = "perceptual_hash"

    version = 6
    reads = (IMAGE,)

    decode: Literal["scaled", "full"] = "scaled"
    """How a JPEG is decoded: `scaled` takes half the time and is within 2 of 64 bits of `full`."""
    turned: bool = False
    """Also write the hashes of the image turned and mirrored."""

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """The turned hashes only where they are asked for."""
        return (PHASH, GREY_DEVIATION, *([PHASH_TURNED] if self.turned else []))

    def identity(self) -> dict[str, object]:
        """What was the same before there were turned hashes is so still."""
        return self.model_dump(mode="json", exclude={"kind", "optional"} | (set() if self.turned else {"turned"}))

    def open(self) -> Scorer:
        """Load the decoder and the transform."""
        import scipy.fft  # noqa: F401  loaded here so that the first batch takes no longer than the next

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            found = [_grey(image, self.decode) for image in batch[IMAGE.name].to_pylist()]
            reasons = [each if isinstance(each, str) else None for each in found]
            sound = [each for each in found if not isinstance(each, str)]
            grey = np.stack(sound) if sound else np.zeros((0, SIDE_PX, SIDE_PX), np.uint8)
            low = low_frequencies(grey)
            values = [hashes_of(low).tolist(), grey.std(axis=(1, 2), dtype=np.float64).tolist()]
            values += [turned_hashes(low).tolist()] if self.turned else []
            columns = [
                pa.array(_in_place(each, reasons), field.type) for each, field in zip(values, self.writes, strict=True)
            ]
            return pa.record_batch([*columns, pa.array(reasons, pa.string())], self.returns())

        return score


def _grey(image: bytes | None, scale: str) -> Grey | str:
    """Grey pixels, or the reason why there are none."""
    from stages.pixels import PixelError, decode

    if image is None:
        return "missing_image"
    if scale == "scaled" and (luma := jpeg_luma(image)) is not None:
        return reduced(luma)
    try:
        return grey_pixels(decode(image))
    except PixelError as error:
        return error.reason


def _in_place(values: list[Any], reasons: list[str | None]) -> list[Any]:
    """The values in order, null where there is a reason."""
    given = iter(values)
    return [next(given) if reason is None else None for reason in reasons]
