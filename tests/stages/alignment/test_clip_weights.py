"""Models are named by content, and what cannot be a model is refused before anything is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from schemas.errors import RecipeError
from stages.alignment.clip.stage import Clip
from stages.clip_model.weights import architectures, find_model

ROOT = Path(__file__).resolve().parents[3]
CONFIG = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}


def make_folder(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    weights = np.random.Generator(np.random.Philox(seed)).random((4, 4), np.float32)
    save_file({"weight": weights}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of our own, so that neither the network nor this machine's downloads matter."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "hub"


def cache_file(cache: Path, repository: str, name: str, content: bytes) -> None:
    """Lay a file where the hub's client looks for it."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs/main").write_text("abc")
    (home / "snapshots/abc").mkdir(parents=True, exist_ok=True)
    (home / "snapshots/abc" / name).write_bytes(content)


def test_a_folder_is_its_content(tmp_path: Path) -> None:
    first, second, other = (make_folder(tmp_path / name, seed) for name, seed in (("a", 0), ("b/c", 0), ("d", 1)))
    identity = find_model(str(first)).identity()
    assert identity == find_model(f"local-dir:{second}").identity() != find_model(str(other)).identity()
    (first / "README.md").write_text("words")
    assert find_model(str(first)).identity() == identity
    (first / "tokenizer.json").write_text("{}")
    assert find_model(str(first)).identity() != identity


def test_changed_weights_are_seen_in_the_same_process(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    before = find_model(str(folder)).identity()
    save_file({"weight": np.ones((4, 4), np.float32)}, folder / "open_clip_model.safetensors")
    assert find_model(str(folder)).identity() != before


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere' is not there"):
        find_model(f"local-dir:{tmp_path}/nowhere")
    folder = make_folder(tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    with pytest.raises(RecipeError, match="remove `pretrained: openai`"):
        find_model(str(folder), "openai")
    weights.write_bytes(whole[:-1])
    with pytest.raises(RecipeError, match=rf"has {len(whole) - 1} bytes, its header says {len(whole)}"):
        find_model(str(folder))
    for junk in (b"", b"not weights at all", b"\xff" * 64):
        weights.write_bytes(junk)
        with pytest.raises(RecipeError, match="holds no safetensors"):
            find_model(str(folder))
    weights.unlink()
    with pytest.raises(RecipeError, match=r"holds \['open_clip_config.json'\]; expected .* weights"):
        find_model(str(folder))
    weights.write_bytes(whole)
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 8}}')
    with pytest.raises(RecipeError, match=r"lacks \['text_cfg', 'vision_cfg'\]"):
        find_model(str(folder))
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(RecipeError, match="is not an open_clip configuration"):
        find_model(str(folder))


def test_architectures_are_those_of_open_clip() -> None:
    import open_clip

    assert set(architectures()) == set(open_clip.list_models())


@pytest.mark.parametrize(
    ("model", "pretrained", "words"),
    [
        ("ViT-B-33", "openai", r"unknown model 'ViT-B-33'; did you mean 'ViT-B-32'"),
        ("xyzzy", "openai", r"unknown model 'xyzzy'; known: .*local-dir:PATH"),
        ("ViT-B-32", None, r"weights would be random; tags of this model: .*openai"),
        ("ViT-B/32", "laion2b_s34b_b79", r"unknown tag 'laion2b_s34b_b79'; did you mean 'laion2b_s34b_b79k'"),
        ("hf-hub:org/model", "openai", r"brings its own weights"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(model: str, pretrained: str | None, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Clip(model=model, pretrained=pretrained, device="cpu").check()


def test_a_tag_is_its_cached_file(empty_cache: Path) -> None:
    stage = Clip(model="ViT-B-32", pretrained="laion2b_s34b_b79k", device="cpu")
    assert stage.identity()["weights"] == "unknown until downloaded"
    cache_file(empty_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_pytorch_model.bin", b"pickled")
    pickled = stage.identity()["weights"]
    cache_file(empty_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors", b"safe")
    safe = stage.identity()["weights"]
    assert len({"unknown until downloaded", pickled, safe}) == 3
    assert stage.identity()["model"] == "ViT-B-32" and stage.identity()["pretrained"] == "laion2b_s34b_b79k"


def test_a_hub_model_is_its_cached_files(empty_cache: Path) -> None:
    assert find_model("hf-hub:org/model").files is None
    cache_file(empty_cache, "org/model", "open_clip_config.json", json.dumps(CONFIG).encode())
    assert find_model("hf-hub:org/model").identity() == "unknown until downloaded"
    cache_file(empty_cache, "org/model", "open_clip_pytorch_model.bin", b"weights")
    known = find_model("hf-hub:org/model").identity()
    assert len(known) == 64
    cache_file(empty_cache, "org/model", "tokenizer.json", b"{}")  # comes with the first load
    assert find_model("hf-hub:org/model").identity() == known


def test_a_weights_file_is_its_content(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    stage = Clip(model="ViT-B-32", pretrained=str(weights), device="cpu")
    assert stage.identity()["pretrained"] is None and len(str(stage.identity()["weights"])) == 64
    weights.write_bytes(b"junk")
    with pytest.raises(RecipeError, match="holds no safetensors"):
        stage.check()


def test_a_folder_is_checked_and_named_without_torch(tmp_path: Path) -> None:
    """A command that finds everything computed must not pay seconds for importing what it does not use."""
    folder = make_folder(tmp_path / "model")
    code = (
        "import sys; from stages.alignment.clip.stage import Clip; "
        f"stage = Clip(model={str(folder)!r}, device='cpu'); stage.check(); stage.identity(); "
        "print([name for name in ('torch', 'open_clip', 'transformers') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"
