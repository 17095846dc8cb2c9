"""Tiny models with random weights, for mechanics only, and shards to train on."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stages.train.settings import TrainSettings

WORDS = ("a", "red", "green", "circle", "square", "star", "above", "beside", "the", "large", "of", "on", "table")


def draw(number: int, size: int = 40) -> bytes:
    noise = np.random.Generator(np.random.Philox(number))
    coarse = Image.fromarray(noise.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((size, size)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Image bytes by number."""
    return draw


def caption(number: int) -> str:
    noise = np.random.Generator(np.random.Philox(1000 + number))
    return " ".join(noise.choice(WORDS, int(noise.integers(3, 8))))


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([caption(number) for number in range(200)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("vision")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 4, "width": 24, "layers": 2, "head_width": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config)
    save_file(dict(model.state_dict()), folder / "open_clip_model.safetensors")
    shape = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": shape}))
    return folder


@pytest.fixture
def settings(language_folder: Path, vision_folder: Path) -> Callable[..., TrainSettings]:
    def make(**changed: object) -> TrainSettings:
        given = {
            "vision_model": str(vision_folder), "language_model": str(language_folder), "budget": {"steps": 6},
            "batch": 4, "seeds": 2, "learning_rate": 3e-3, "max_tokens": 6, "generated": 6, "checkpoint_steps": 2,
        }  # fmt: skip
        return TrainSettings.model_validate({**given, **changed})

    return make


@pytest.fixture
def write_shard(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, numbers: range | list[int], extra: list[tuple[str, bytes]] | None = None) -> str:
        path = tmp_path / f"{name}.tar"
        members = [
            (f"k{n:04d}.{suffix}", body)
            for n in numbers
            for suffix, body in (("png", draw(n)), ("txt", caption(n).encode()))
        ]
        with tarfile.open(path, "w") as archive:
            for member, body in [*members, *(extra or [])]:
                info = tarfile.TarInfo(member)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        return str(path)

    return write


@pytest.fixture
def held_out() -> pa.Table:
    numbers = range(500, 512)
    columns = {"key": [f"e{n}" for n in numbers], "image": [draw(n) for n in numbers]}
    captions = [caption(n) for n in numbers]
    return pa.table({**columns, "caption": captions}).cast(
        pa.schema([("key", pa.string()), ("image", pa.large_binary()), ("caption", pa.string())])
    )
