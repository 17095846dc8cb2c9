"""The demo's recipe, written beside its corpus: paths of the shipped models and sample counts filled in."""

import json
from pathlib import Path

from schemas.errors import CuveeError

HERE = Path(__file__).parent
ENCODER, LANGUAGE_MODEL = HERE / "models" / "encoder", HERE / "models" / "language_model"
DSIR_SHARE, EXPORT_SHARE = 0.25, 0.4
"""Samples that DSIR keeps and that the export draws, as shares of the pool's pairs."""


def demo_recipe(folder: Path, template: str = "recipe.yaml") -> Path:
    """Write `recipe.yaml` beside the corpus in `folder/corpus` and return its path; an equal file is left as it is.

    Args:
        folder: where the corpus lies.
        template: which of the recipes in this package.

    Raises:
        CuveeError: there is no demo corpus in the folder.
    """
    marker = folder / "corpus" / "corpus.json"
    if not marker.exists():
        raise CuveeError(f"{marker} is not there; write the corpus first, with `write_corpus({str(marker.parent)!r})`")
    pairs = json.loads(marker.read_text())["pairs"]
    facts = {
        "ENCODER": json.dumps(f"local-dir:{ENCODER}"),
        "LANGUAGE_MODEL": json.dumps(str(LANGUAGE_MODEL)),
        "DSIR_SAMPLES": str(round(DSIR_SHARE * pairs)),
        "EXPORT_SAMPLES": str(round(EXPORT_SHARE * pairs)),
    }
    text = (HERE / template).read_text()
    for name, value in facts.items():
        text = text.replace(f": {name}", f": {value}")
    path = folder / "recipe.yaml"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path
