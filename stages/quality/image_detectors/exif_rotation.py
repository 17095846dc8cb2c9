"""How a viewer turns an image by the orientation in its EXIF or XMP: tells pictures that a plain loader shows lying."""

TURNS = (
    *((0, False), (0, True), (180, False), (180, True)),
    *((270, True), (90, False), (90, True), (270, False)),
)


def exif_rotation(orientation: int) -> tuple[int, bool]:
    """(degrees clockwise, mirrored) of an orientation, 1 to 8: mirror left to right where so said, then turn."""
    return TURNS[orientation - 1]
