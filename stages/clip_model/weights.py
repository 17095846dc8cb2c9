"""Which files an open_clip model is made of, named by content; light enough for `cuvee check`, nothing is loaded."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import RecipeError
from stages.file_identity import file_identity

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
# open_clip's own order of preference; what else ends in these suffixes comes after, by name.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
SUFFIXES = (".safetensors", ".bin", ".pth")
TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".jinja")
HINT = "name a model open_clip knows with a `pretrained` tag, or local-dir:PATH"


@dataclass(frozen=True)
class ModelFiles:
    """A model as open_clip is asked for it, and where its files lie."""

    name: str
    """Built-in architecture, `local-dir:PATH` or `hf-hub:ORG/REPO`."""
    pretrained: str | None
    """Tag or weights file of a built-in architecture."""
    files: tuple[Path, ...] | None
    """Configuration, weights and tokenizer; None while nothing has been downloaded."""

    def width(self) -> int | None:
        """Numbers of one embedding, as the configuration says; None while a hub model's is not here."""
        if self.name.startswith((LOCAL, HUB)):
            found = [file for file in self.files or () if file.name == CONFIG]
            return int(json.loads(found[0].read_text())["model_cfg"]["embed_dim"]) if found else None
        return int(json.loads((_configurations() / f"{self.name}.json").read_text())["embed_dim"])

    def address(self) -> dict[str, object]:
        """What an output that depends on this model is addressed by; names only where they say more than the files."""
        own_files = self.name.startswith(LOCAL)
        return {
            "model": None if own_files else self.name,
            "pretrained": None if own_files or Path(self.pretrained or "").is_file() else self.pretrained,
            "weights": self.identity(),
        }

    def identity(self) -> str:
        """SHA-256 over the names and contents of the files, free of where they lie."""
        if self.files is None:
            return "unknown until downloaded"
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file.name}\0{file_identity(file)}\n".encode())
        return total.hexdigest()


def find_model(model: str, pretrained: str | None = None) -> ModelFiles:
    """Look a model up without loading or downloading anything.

    Args:
        model: a name of open_clip's, `hf-hub:ORG/REPO`, `local-dir:PATH`, or the path of such a folder.
        pretrained: tag or weights file that belongs to a name of open_clip's; None for the others.

    Raises:
        RecipeError: unknown name or tag (with the nearest one), a folder that holds no model, damaged weights, or a
            name without `pretrained`: its weights would be random.
    """
    path = model.removeprefix(LOCAL)
    if path != model or os.path.isdir(path) or path.startswith((".", "/")):
        return ModelFiles(LOCAL + path, None, _folder_files(Path(path), pretrained))
    if model.startswith(HUB):
        _refuse_tag(model, pretrained)
        return ModelFiles(model, None, _hub_files(model.removeprefix(HUB)))
    name = model.replace("/", "-")
    _refuse_unknown("model", name, architectures(), HINT)
    if pretrained is None:
        raise RecipeError(
            f"clip: model {model!r} comes without `pretrained`, so its weights would be random; "
            f"tags of this model: {', '.join(_tags(name)) or 'none'}"
        )
    if os.path.isfile(pretrained):
        return ModelFiles(name, pretrained, (sound_weights(Path(pretrained)),))
    _refuse_unknown("tag", pretrained.lower().replace("-", "_"), _tags(name), f"of model {name!r}, or a weights file")
    return ModelFiles(name, pretrained, _tag_files(name, pretrained))


def architectures() -> list[str]:
    """The names of open_clip's built-in configurations, read from its folder: importing it takes seconds."""
    return sorted(path.stem for path in _configurations().glob("*.json"))


def _configurations() -> Path:
    package = find_spec("open_clip")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "model_configs"


def sound_weights(file: Path) -> Path:
    """The file, if it can be weights: safetensors say in their header how long they are.

    Raises:
        RecipeError: the header is unreadable or the file has another length.
    """
    if file.suffix != ".safetensors":
        return file
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = stream.read(size) if size < 100 << 20 else b""
    try:
        tensors = {name: facts for name, facts in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + size + max(facts["data_offsets"][1] for facts in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"clip: {str(file)!r} holds no safetensors ({error}); save or copy the weights anew"
        ) from error
    if (found := file.stat().st_size) != expected:
        raise RecipeError(f"clip: {str(file)!r} has {found} bytes, its header says {expected}; copy the weights anew")
    return file


def _folder_files(folder: Path, pretrained: str | None) -> tuple[Path, ...]:
    _refuse_tag(str(folder), pretrained)
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else None
    if names is None:
        raise RecipeError(f"clip: model folder {str(folder)!r} is not there; {HINT}")
    weights = [name for name in WEIGHTS if name in names] or [name for name in names if name.endswith(SUFFIXES)]
    if CONFIG not in names or not weights:
        raise RecipeError(
            f"clip: folder {str(folder)!r} holds {names[:8]}; expected {CONFIG} and weights, e.g. {WEIGHTS[0]}"
        )
    _check_config(folder / CONFIG)
    sound_weights(folder / weights[0])
    needed = [name for name in names if name == weights[0] or name.endswith(TOKENIZER_SUFFIXES)]
    return tuple(folder / name for name in needed)


def _check_config(file: Path) -> None:
    try:
        config = json.loads(file.read_text())["model_cfg"]
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"clip: {str(file)!r} is not an open_clip configuration: {error!r}") from error
    if missing:
        raise RecipeError(f"clip: `model_cfg` in {str(file)!r} lacks {sorted(missing)}")


def _refuse_tag(model: str, pretrained: str | None) -> None:
    if pretrained is not None:
        raise RecipeError(f"clip: {model!r} brings its own weights; remove `pretrained: {pretrained}`")


def _refuse_unknown(what: str, found: str, known: Iterable[str], hint: str) -> None:
    known = sorted(known)
    if found not in known:
        close = get_close_matches(found, known, 1, 0.5)
        suggestion = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:20])}"
        raise RecipeError(f"clip: unknown {what} {found!r}; {suggestion} ({hint})")


def _tags(name: str) -> list[str]:
    import open_clip

    return list(open_clip.list_pretrained_tags_by_model(name))


def _tag_files(name: str, tag: str) -> tuple[Path, ...] | None:
    """The cached file of a tag, where open_clip would look for it."""
    from open_clip.pretrained import get_pretrained_cfg

    config: dict[str, Any] = get_pretrained_cfg(name, tag)
    if repository := config.get("hf_hub"):
        folder, _, file = repository.rpartition("/")
        return _cached(folder, [file] if file else list(WEIGHTS))
    file = Path("~/.cache/clip").expanduser() / os.path.basename(config.get("url", ""))
    return (file,) if file.is_file() else None


def _cached(repository: str, names: list[str]) -> tuple[Path, ...] | None:
    from huggingface_hub import try_to_load_from_cache

    safe = [f"{os.path.splitext(name)[0]}.safetensors" for name in names if name.endswith((".bin", ".pth"))]
    for name in (*safe, *names):
        if isinstance(found := try_to_load_from_cache(repository, name), str):
            return (Path(found),)
    return None


def _hub_files(repository: str) -> tuple[Path, ...] | None:
    """Configuration and weights in the hub's cache; tokenizer files may come later and must not change the identity."""
    config, weights = _cached(repository, [CONFIG]), _cached(repository, list(WEIGHTS))
    return config + weights if config and weights else None
