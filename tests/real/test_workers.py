"""Every rule over real pairs at 1, 2 and 7 workers, with sources and shards in another order: the same verdicts."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.kinds import kinds
from stages.rule import Rule

SHARDS = {"photos": ("00000.tar",), "electronics": ("00000.tar", "00001.tar"), "emoji": ("00000.tar",)}
SCENES = ["people", "animals", "food", "street", "landscape", "vehicle"]
STAGES = ("image_header", "caption_text", "caption_rules", "caption_safety", "perceptual_hash")
BEFORE: list[dict[str, Any]] = [
    {"kind": "at_least", "column": "min_side_px", "value": 32},
    {"kind": "at_most", "column": "words", "value": 40},
    {"kind": "one_of", "column": "script", "values": ["Latin", "Common"]},
    {"kind": "none_of", "column": "truncated_ending", "values": ["open_bracket"]},
    {"kind": "caption_flags"},
    {"kind": "embedding_geometry"},
    {"kind": "exact_duplicates", "of": "sample"},
    {"kind": "near_duplicate_images", "max_distance": 4},
    {"kind": "minhash_captions"},
    {"kind": "semdedup", "keep": 0.97},
    {"kind": "bimodal_duplicates", "images": {"kind": "near"}, "captions": {"kind": "near"}},
    {"kind": "decontaminate", "against": ["dev"]},
    {"kind": "top_fraction", "column": "clip_score", "fraction": 0.95, "per_source": True},
]
SELECTORS: list[dict[str, Any]] = [
    {"kind": "best", "column": "negcliploss"},
    {"kind": "dsir"},
    {"kind": "got_d"},
    {"kind": "tsds"},
    {"kind": "deft"},
    {"kind": "odis", "scores": ["clip_score", "negcliploss", "normsim_2", "words"]},
    {"kind": "sus_x", "column": "scene", "classes": SCENES},
    {"kind": "m4", "sensitive": [{"column": "scene", "value": "people", "share": 0.25}]},
]
IN_PARTS = (
    "import pipeline.select as fold; fold.ROWS_PER_PART = 100; from pipeline.cli import main; raise SystemExit(main())"
)


def write_recipe(home: Path, shared: Path, *, backwards: bool) -> Path:
    """The same pairs; backwards, sources come in another order, and shards under other names."""
    step = -1 if backwards else 1
    for source, names in SHARDS.items():
        folder = home / "pool" / source
        folder.mkdir(parents=True)
        for place, name in enumerate(names[::step]):
            (folder / f"{place:03d}.tar").symlink_to(shared / "data/pool" / source / name)
    recipe = {
        "name": "workers",
        "workspace": "./work",
        "seed": 5,
        "pool": [{"source": source, "shards": f"pool/{source}/*.tar"} for source in list(SHARDS)[::step]],
        "target": {"shards": str(shared / "data/target/photos/00000.tar")},
        "references": {"dev": {"shards": str(shared / "data/target/photos/00000.tar")}},
        "score": [
            *({"kind": kind} for kind in STAGES),
            {"kind": "clip", "model": f"local-dir:{shared / 'models/tiny-dual-encoder'}"},
            {"kind": "negcliploss"},
            {"kind": "normsim"},
            {"kind": "concepts", "column": "scene", "score": "cosine", "concepts": SCENES},
        ],
        "select": BEFORE,
        "compare": {"samples": 200, "selectors": SELECTORS},
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return home / "recipe.yaml"


def verdicts(work: Path) -> dict[str, str]:
    """Kind and file -> sha256 of everything that rules decided and learned."""
    found = {}
    for file in sorted(work.glob("fits/*/**/*")):
        if file.is_file():
            kind = file.relative_to(work / "fits").parts[0].rsplit("-", 1)[0]
            found[f"{kind}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@pytest.mark.slow
def test_every_rule_decides_alike(shared: Path, tmp_path: Path) -> None:
    if not (shared / "models/tiny-dual-encoder").is_dir():
        pytest.skip("the real dual encoder ../shared/models/tiny-dual-encoder is not here")
    ours = {kind for kind, rule in kinds(Rule).items() if rule.__module__.startswith("stages.")}
    always = {"random", "longest_caption"}
    assert ours - always == {step["kind"] for step in BEFORE + SELECTORS}, "every rule has its line here"
    found: list[dict[str, str]] = []
    for workers in (1, 2, 7):
        home = tmp_path / str(workers)
        recipe = write_recipe(home, shared, backwards=workers == 2)
        if found:  # what is scored does not depend on it, and other tests hold that
            shutil.copytree(tmp_path / "1" / "work" / "scores", home / "work" / "scores")
        command = [sys.executable, "-c", IN_PARTS, "compare", str(recipe), "--workers", str(workers)]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        found.append(verdicts(home / "work"))
    assert {name.split("/")[0] for name in found[0]} >= ours
    assert found[0] == found[1] == found[2]
