"""A trained model for the clip tests: the real one beside the repository or the one the project ships."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (ROOT.parent / "shared/models/tiny-dual-encoder", ROOT / "pipeline/demo/models/encoder")


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The first trained model there is."""
    for folder in FOLDERS:
        if folder.is_dir():
            return folder
    pytest.skip("no trained CLIP model is here: neither ../shared/models/tiny-dual-encoder nor the demo's encoder")
