"""Why a sample has nothing to work on: reason codes of missing and empty parts, the same in every stage."""


def no_caption(caption: str | None) -> str | None:
    """`missing_caption`, `empty_caption` for white space alone, or None where there is one."""
    if caption is None:
        return "missing_caption"
    return None if caption.strip() else "empty_caption"


def no_pair(image: bytes | None, caption: str | None) -> str | None:
    """`missing_image`, else what `no_caption` says."""
    return "missing_image" if image is None else no_caption(caption)
