"""Starter recipes for `cuvee init`: each a commented YAML file beside this module."""

from pathlib import Path

from schemas.errors import RecipeError

FOLDER = Path(__file__).parent


def starters() -> dict[str, str]:
    """Name -> the file's first comment line, sorted."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.stem: file.read_text().splitlines()[0].removeprefix("#").strip() for file in files}


def starter(name: str) -> str:
    """The text of one starter.

    Raises:
        RecipeError: no such starter, with those there are.
    """
    from pipeline.resolve import nearest

    known = starters()
    if name not in known:
        raise RecipeError(f"no starter called {name!r}{nearest(name, known)}")
    return (FOLDER / f"{name}.yaml").read_text()
