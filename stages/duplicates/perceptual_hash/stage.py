"""The hash: 32 x 32 grey pixels, DCT-II, the 8 x 8 lowest frequencies against their median.

The definition and the bit order are those of the `ImageHash` package (`int(str(imagehash.phash(image)), 16)`): grey
first, then Lanczos to 32 x 32; DC takes part in the median; a bit is set when its coefficient is greater; row after
row (rows are vertical frequencies), most significant bit first. `imagededup` differs: it leaves DC out of the median
and sets a bit on equality. Unlike both, the image stands upright by its EXIF orientation first, and a JPEG is decoded
at a reduced scale, see `luma.py`; `decode: full` gives the packages' bits for JPEG too.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import GREY_DEVIATION, IMAGE, PHASH
from stages.duplicates.perceptual_hash.luma import jpeg_luma
from stages.stage import Scorer, Stage

if TYPE_CHECKING:
    from PIL import Image

SIDE_PX = 32
LOW_FREQUENCIES = 8
Hashes = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]


def grey_pixels(picture: "Image.Image") -> Grey:
    """(32, 32) luma (ITU-R 601) of the whole picture; transparency is dropped, colours below it show."""
    from PIL import Image

    return np.asarray(picture.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def reduced(luma: Grey) -> Grey:
    """(32, 32) of (height, width) luma."""
    from PIL import Image

    return grey_pixels(Image.fromarray(luma))


def perceptual_hashes(grey: Grey) -> Hashes:
    """(n,) hashes of (n, 32, 32) grey pixels; 32 of 64 bits are set unless coefficients equal the median."""
    from scipy.fft import dct

    low = dct(dct(grey.astype(np.float64), axis=1), axis=2)[:, :LOW_FREQUENCIES, :LOW_FREQUENCIES]
    low = low.reshape(len(grey), LOW_FREQUENCIES**2)
    packed = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    return np.ascontiguousarray(packed).view(">u8")[:, 0].astype(np.uint64)


class PerceptualHash(Stage):
    """Writes the 64-bit hash and the deviation of the grey pixels, by which a rule knows flat images."""

    kind: Literal["perceptual_hash"] = "perceptual_hash"

    version = 4
    reads = (IMAGE,)
    writes = (PHASH, GREY_DEVIATION)

    decode: Literal["scaled", "full"] = "scaled"
    """How a JPEG is decoded: `scaled` takes half the time and is within 2 of 64 bits of `full`."""

    def open(self) -> Scorer:
        """Load the decoder and the transform."""
        import scipy.fft  # noqa: F401  loaded here so that the first batch takes no longer than the next

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            found = [_grey(image, self.decode) for image in batch[IMAGE.name].to_pylist()]
            reasons = [each if isinstance(each, str) else None for each in found]
            sound = [each for each in found if not isinstance(each, str)]
            grey = np.stack(sound) if sound else np.zeros((0, SIDE_PX, SIDE_PX), np.uint8)
            hashes, deviations = perceptual_hashes(grey), grey.std(axis=(1, 2), dtype=np.float64)
            columns = [
                pa.array(_in_place(hashes.tolist(), reasons), PHASH.type),
                pa.array(_in_place(deviations.tolist(), reasons), GREY_DEVIATION.type),
                pa.array(reasons, pa.string()),
            ]
            return pa.record_batch(columns, self.returns())

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
