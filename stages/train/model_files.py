"""Which files a model is, told by their content: a path or a name is never an identity."""

import hashlib
import os
from pathlib import Path

from schemas.errors import RecipeError
from stages.file_identity import file_identity

SUFFIXES = (".json", ".safetensors", ".bin", ".pt", ".model", ".txt", ".jinja")
"""Files that decide what a model computes; a README does not."""


def folder_identity(folder: Path, only: str | None = None) -> str:
    """64 hex digits: SHA-256 over names and contents of a model folder's files, or of one of them.

    Raises:
        RecipeError: the folder is missing or holds no model files.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    chosen = [name for name in names if name.endswith(SUFFIXES) and only in (None, name)]
    if not chosen:
        raise RecipeError(f"no model files in {str(folder)!r}; name a folder with a configuration and weights")
    total = hashlib.sha256()
    for name in chosen:
        total.update(f"{name}\0{file_identity(folder / name)}\n".encode())
    return total.hexdigest()


def local_folder(name: str) -> Path:
    """The folder called `name`, or the one that the hub's local cache holds for it; nothing is downloaded.

    Raises:
        RecipeError: there is neither.
    """
    if os.path.isdir(name):
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model {name!r} is neither a folder nor in the local hub cache; name an existing folder, or download it "
            f"first with `hf download {name}`"
        ) from error
