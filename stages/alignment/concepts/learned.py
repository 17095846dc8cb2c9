"""Learned prompts: text-side vectors by name, in safetensors; numpy only."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.file_identity import file_identity
from stages.vectors import Doubles


def read_prompts(file: Path) -> dict[str, Doubles]:
    """Concept -> its learned vectors (n, d), of any length; names in order.

    Each tensor is (d,) or (n, d), in F16, F32 or F64.

    Raises:
        RecipeError: no such file, no safetensors, or tensors of other shapes or types, of several widths, zero or not
            finite.
    """
    if not file.is_file():
        raise _refusal(file, "are not there; name a safetensors file of one tensor a concept")
    return _read(str(file), file_identity(file))


@cache
def _read(path: str, _: str) -> dict[str, Doubles]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = {name: values for name, values in sorted(load_file(path).items())}
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two of numbers that numpy has not
        raise _refusal(Path(path), f"are no safetensors that numpy knows ({error!s:.200})") from error
    return _checked(Path(path), found)


def _checked(file: Path, found: dict[str, npt.NDArray[Any]]) -> dict[str, Doubles]:
    prompts = {name: np.atleast_2d(values.astype(np.float64)) for name, values in found.items()}
    for name, rows in prompts.items():
        if found[name].dtype.kind != "f" or rows.ndim != 2 or not rows.size:
            raise _refusal(file, f"hold {name!r} as {found[name].dtype} {found[name].shape}; expected (d,) or (n, d)")
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            raise _refusal(file, f"hold NaN, infinity or zeros alone in {name!r}")
    if not prompts or len({rows.shape[1] for rows in prompts.values()}) > 1:
        raise _refusal(file, f"have widths {sorted({rows.shape[1] for rows in prompts.values()})}; expected one")
    return prompts


def convert_prompts(source: Path, target: Path, names: Sequence[str]) -> None:
    """Write prompts that numpy saved, one row (d,) a concept, as `read_prompts` reads them.

    Raises:
        RecipeError: `source` is no array of numbers in `.npy`, has another number of rows than names, or rows of zeros,
            NaN or infinity.
        OSError: `target` cannot be written.
    """
    from safetensors.numpy import save

    try:
        rows = np.load(source, allow_pickle=False)
    except Exception as error:  # numpy, zipfile and tokenize each raise their own
        raise RecipeError(f"{str(source)!r} is no array that loads without unpickling: {error!s:.200}") from error
    if not isinstance(rows, np.ndarray):
        raise RecipeError(
            f"{str(source)!r} holds several arrays ({', '.join(rows)}); save the one of prompts as `.npy`"
        )
    if rows.ndim != 2 or len(rows) != len(names) or len(set(names)) != len(names) or rows.dtype.kind != "f":
        raise RecipeError(
            f"{str(source)!r} holds {rows.dtype} {rows.shape}; expected {len(names)} rows for {list(names)}: "
            "name each row once with `--names`"
        )
    prompts = {name: np.ascontiguousarray(row, np.float32) for name, row in zip(names, rows, strict=True)}
    _checked(source, dict(prompts))
    target.write_bytes(save(prompts))


def _refusal(file: Path, words: str) -> RecipeError:
    return RecipeError(f"learned prompts {str(file)!r} {words}")
