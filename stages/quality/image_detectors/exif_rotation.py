"""How a viewer turns an image by its EXIF orientation: tells pictures that a loader without EXIF shows lying down."""

TURNS = (
    *((0, False), (0, True), (180, False), (180, True)),
    *((270, True), (90, False), (90, True), (270, False)),
)


def exif_rotation(orientation: int) -> tuple[int, bool]:
    """(degrees clockwise, mirrored) of an EXIF orientation, 1 to 8: mirror left to right where so said, then turn."""
    return TURNS[orientation - 1]
