"""Trains the demo's dual encoder: an open_clip model on clean generated scenes, in styles the demo never shows.

Loss: CLIP's symmetric cross entropy (arXiv:2103.00020), with captions that describe no image as further negatives,
plus a training-only head that names colour and shape at every patch, so that patch tokens carry what they cover.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.demo.captions import PHRASINGS, boilerplate, caption, product_title
from pipeline.demo.render import TRAINING_STYLES, Drawing, draw
from pipeline.demo.scenes import COLOURS, SHAPES, Scene, draw_scene, pick, randomness
from pipeline.demo.tokens import write_tokenizer

if TYPE_CHECKING:
    import torch

IMAGE_PX, PATCH_PX, WIDTH, VOCABULARY, CONTEXT = 64, 8, 128, 1024, 32
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
        "width": WIDTH,
        "head_width": 32,
        "layers": 4,
        "pool_type": "avg",
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "hf_tokenizer_name": "beside this file",
        "width": 96,
        "heads": 3,
        "layers": 2,
    },
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the encoder learns."""

    scenes: int = 60_000
    epochs: int = 4
    batch: int = 128
    empty_captions: int = 32
    """Captions without an image added to each batch as negatives."""
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Examples:
    """Clean training pairs."""

    images: npt.NDArray[np.uint8]
    """(n, IMAGE_PX, IMAGE_PX, 3)."""
    cells: npt.NDArray[np.int64]
    """(n, patches, 2): colour and shape at each patch, 0 = ground."""
    captions: list[str]


def training_examples(count: int, seed: int) -> Examples:
    """Clean scenes of the training styles; their random streams are the encoder's own, whatever the seed."""
    images, cells, captions = [], [], []
    for index in range(count):
        rng = randomness(seed, "encoder", index)
        scene = draw_scene(rng)
        drawing = draw(scene, TRAINING_STYLES[pick(rng, tuple(TRAINING_STYLES))], rng)
        image = Image.fromarray(drawing.pixels).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
        images.append(np.asarray(image))
        cells.append(_cells(scene, drawing))
        captions.append(caption(scene, pick(rng, tuple(PHRASINGS)), rng))
    return Examples(np.stack(images), np.stack(cells), captions)


def empty_caption(seed: int, index: int) -> str:
    """A caption that describes no image, from templates the demo does not use."""
    rng = randomness(seed, "encoder-empty", index)
    return boilerplate(rng, "training") if rng.random() < 0.6 else product_title(rng)


def train_encoder(folder: Path, seed: int, schedule: Schedule, say: Callable[[str], None] = print) -> None:
    """Train on one CPU thread and write an open_clip folder, loadable as `local-dir:FOLDER`, weights in fp16."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    examples = training_examples(schedule.scenes, seed)
    empties = [empty_caption(seed, index) for index in range(schedule.scenes // 4)]
    write_tokenizer(folder, [*examples.captions, *empties], VOCABULARY, lowercase=True, frame=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}, indent=1) + "\n"
    )
    model = _learn(folder, examples, empties, seed, schedule, say)
    _save(model, folder / "open_clip_model.safetensors")


def _learn(
    folder: Path, examples: Examples, empties: list[str], seed: int, schedule: Schedule, say: Callable[[str], None]
) -> Any:
    import open_clip
    import torch
    from open_clip.model import CLIP

    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    tokens, empty_tokens = tokenize(examples.captions), tokenize(empties)
    model = CLIP(MODEL["embed_dim"], MODEL["vision_cfg"], MODEL["text_cfg"])
    model.visual.output_tokens = True
    naming = torch.nn.Linear(WIDTH, len(COLOURS) + len(SHAPES) + 2)
    parameters = [*model.parameters(), *naming.parameters()]
    steps = schedule.epochs * (len(tokens) // schedule.batch)
    optimizer = torch.optim.AdamW(parameters, schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.learning_rate, steps, pct_start=0.08)
    for step, rows in enumerate(_batches(len(tokens), schedule, seed)):
        images = _augment(torch.from_numpy(examples.images[rows]), torch.Generator().manual_seed(seed * 10**6 + step))
        drawn = torch.from_numpy(randomness(seed, "encoder-draw", step).permutation(len(empties)))
        texts = torch.cat([tokens[rows], empty_tokens[drawn[: schedule.empty_captions]]])
        loss = _loss(model, naming, images, texts, torch.from_numpy(examples.cells[rows]))
        optimizer.zero_grad()
        loss["total"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        if step % 25 == 0 or step == steps - 1:
            say(f"step {step}/{steps} " + " ".join(f"{name} {value.item():.3f}" for name, value in loss.items()))
    return model


def _batches(count: int, schedule: Schedule, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    for epoch in range(schedule.epochs):
        order = randomness(seed, "encoder-order", epoch).permutation(count)
        for start in range(0, count - schedule.batch + 1, schedule.batch):
            yield order[start : start + schedule.batch]


def _loss(
    model: Any, naming: Any, images: "torch.Tensor", texts: "torch.Tensor", cells: "torch.Tensor"
) -> dict[str, "torch.Tensor"]:
    import torch
    import torch.nn.functional as f

    pooled, patches = model.visual(images)
    image, text = f.normalize(pooled, dim=-1), model.encode_text(texts, normalize=True)
    logits = model.logit_scale.clamp(max=4.6).exp() * image @ text.T
    truth = torch.arange(len(images))
    contrast = (f.cross_entropy(logits, truth) + f.cross_entropy(logits[:, : len(images)].T, truth)) / 2
    named = naming(patches).flatten(0, 1)
    colour, shape = named.split((len(COLOURS) + 1, len(SHAPES) + 1), dim=1)
    where = cells.flatten(0, 1)
    naming_loss = f.cross_entropy(colour, where[:, 0]) + f.cross_entropy(shape, where[:, 1])
    return {"total": contrast + naming_loss, "contrast": contrast, "naming": naming_loss}


def _augment(images: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
    """(n, h, w, 3) bytes to (n, 3, h, w) in about [-1, 1], with light, contrast, tint, blur and noise varied."""
    import torch
    import torch.nn.functional as f

    def uniform(low: float, high: float, channels: int = 1) -> "torch.Tensor":
        return low + (high - low) * torch.rand(len(images), channels, 1, 1, generator=generator)

    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    x = x * uniform(0.75, 1.15) * uniform(0.94, 1.06, 3) + uniform(-0.12, 0.12)
    cells = torch.randn(len(images), 1, 4, 4, generator=generator)
    x = x * (1 + uniform(0, 0.2) * f.interpolate(cells, x.shape[-2:], mode="bilinear"))
    x = x.lerp(f.avg_pool2d(x, 3, 1, 1, count_include_pad=False), uniform(-0.5, 0.9).clamp(min=0))
    return x + uniform(-0.06, 0.1).clamp(min=0) * torch.randn(x.shape, generator=generator)


def _cells(scene: Scene, drawing: Drawing) -> npt.NDArray[np.int64]:
    """(patches, 2): per patch the colour and shape of the group that covers over a quarter of it, 0 where none does."""
    side = IMAGE_PX // PATCH_PX
    cells = np.zeros((side * side, 2), np.int64)
    for group, mask in zip(scene.groups, drawing.masks, strict=True):
        share = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BOX)).ravel()
        cells[share > 0.25] = [1 + tuple(COLOURS).index(group.colour), 1 + SHAPES.index(group.shape)]
    return cells


def _save(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    path.chmod(0o644)
