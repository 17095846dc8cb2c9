"""Connector training on one GPU: samples a second, MFU, memory and the share of time spent waiting for pictures.

    python bench/gpu_train.py                        all cases on the CUDA device, bf16; the bars at the end
    python bench/gpu_train.py --case 7b --case 7b-checkpoint
    python bench/gpu_train.py --device cpu --tiny    the same code in small, to see that it runs

A plain script: it needs torch, transformers, open_clip_torch, pydantic, numpy, xxhash and pillow, and starts no Ray.

Models have the shapes of Llama-2-7B, Qwen2.5-1.5B, Qwen2.5-0.5B and ViT-L/14 at 336 px, and random weights: speed does
not depend on them. What runs is the project's own `Bridge`, `lay_out` and `LanguageModel`. A step decodes JPEGs in
worker processes, sends them through the tower, the MLP connector and the language model, and back, and moves the
connector by AdamW. Waiting is the time until the next batch of pixels is there, over the time of all steps.

MFU is useful FLOPs over what the card does in dense bf16. A frozen layer with N weights costs 4 N a token (2 N forward,
2 N for the gradient of its input), below the layer where images enter 2 N a text token; the head 4 N a label, the tower
2 N a patch, the connector 6 N. Attention products are left out. What is computed twice to save memory counts once.
"""

import argparse
import io
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from stages.train.bridge import Bridge  # noqa: E402
from stages.train.connectors.contract import Grid  # noqa: E402
from stages.train.connectors.mlp import Mlp  # noqa: E402
from stages.train.effort import Effort  # noqa: E402
from stages.train.language_model import LanguageModel  # noqa: E402
from stages.train.layout import Layout, Said, lay_out  # noqa: E402
from stages.train.precision import Precision, frozen_dtype, numerics  # noqa: E402
from stages.train.vision_tower import pooled_grid, spatial_features  # noqa: E402

PEAKS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0}
"""Dense bf16 TFLOP/s as NVIDIA states them; the first name that the card's holds."""
QWEN: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LANGUAGES: dict[str, dict[str, Any]] = {
    "7b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 32_000,
    },
    "1.5b": {
        **QWEN, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    },
    "0.5b": {
        **QWEN, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    },
    "tiny": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    },
}  # fmt: skip
TINY_TOWER = {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2}
BEGIN, END, SIDE, PICTURES = 1, 2, 500, 64


@dataclass(frozen=True)
class Case:
    """What a step is made of."""

    language: str
    captions: int
    """Per step."""
    visual: int = 576
    text: tuple[int, int] = (40, 40)
    """Fewest and most label tokens of a caption."""
    per_image: int = 1
    layer: int = 0
    recompute: bool = False
    share: bool = False
    pack: int | None = None

    def small(self) -> "Case":
        """The same with tiny shapes."""
        low, high = self.text
        few: dict[str, Any] = {"language": "tiny", "captions": 8, "visual": 16 if self.visual == 576 else 4}
        fewer: dict[str, Any] = {"layer": min(self.layer, 1), "text": (low // 5, high // 5), "pack": self.pack and 64}
        return replace(self, **few, **fewer)


CASES = {
    "7b": Case("7b", 24),
    "7b-checkpoint": Case("7b", 24, recompute=True),
    "7b-di8": Case("7b", 24, layer=8),
    "7b-k4-apart": Case("7b", 24, per_image=4),
    "7b-k4": Case("7b", 24, per_image=4, share=True),
    "1.5b": Case("1.5b", 48),
    "0.5b": Case("0.5b", 64),
    "0.5b-64-padded": Case("0.5b", 256, visual=64, text=(10, 60)),
    "0.5b-64-packed": Case("0.5b", 256, visual=64, text=(10, 60), pack=4096),
}
BARS: tuple[tuple[str, str | None, float], ...] = (
    ("7b", None, 27.0),
    ("0.5b", None, 200.0),
    ("7b-di8", "7b", 1.2),
    ("7b", "7b-checkpoint", 1.35),
    ("7b-k4", "7b-k4-apart", 2.5),
)
"""Captions a second of a case, or over those of another one: what is asked for on an H200-class card."""
MOST_WAITING = 0.05


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """JPEGs without end, decoded and prepared where they are asked for."""

    def __init__(self, count: int, preprocess: Any) -> None:
        from PIL import Image

        noise = np.random.Generator(np.random.Philox(0))
        self.count, self.preprocess, self.files = count, preprocess, list[bytes]()
        for _ in range(PICTURES):
            coarse = noise.integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
            self.files.append(buffer.getvalue())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> torch.Tensor:
        from stages.pixels import decode, flat_rgb

        prepared: torch.Tensor = self.preprocess(flat_rgb(decode(self.files[number % PICTURES])))
        return prepared


@dataclass
class Models:
    """Tower and language model of one shape, on the device."""

    visual: Any
    preprocess: Any
    language: LanguageModel
    precision: Precision

    @classmethod
    def made(cls, name: str, device: str, precision: Precision) -> "Models":
        """With random weights."""
        import open_clip
        from transformers import AutoConfig, AutoModelForCausalLM

        shape, dtype = dict(LANGUAGES[name]), frozen_dtype(precision)
        config = AutoConfig.for_model(shape.pop("model_type"), **shape, max_position_embeddings=8192)
        with torch.device(device):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, attn_implementation="sdpa"
            )
            model.eval().requires_grad_(False)
            vision = TINY_TOWER if name == "tiny" else open_clip.get_model_config("ViT-L-14-336")["vision_cfg"]
            text = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
            clip = open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text)
        visual = clip.visual.eval().requires_grad_(False).to(dtype)
        preprocess = open_clip.image_transform(vision["image_size"], is_train=False)
        return cls(visual, preprocess, LanguageModel(model, None, BEGIN, END, device), precision)

    def features(self, pixels: torch.Tensor, most: int) -> torch.Tensor:
        """(n, v, width) patches of the layer before the last one, pooled to at most so many."""
        with torch.no_grad():
            patches = spatial_features(self.visual, pixels.to(frozen_dtype(self.precision)), -2)
            cells = pooled_grid(patches.shape[2], patches.shape[3], most)
            return torch.nn.functional.adaptive_avg_pool2d(patches, cells).flatten(2).transpose(1, 2).float()


@dataclass
class Training:
    """A connector between models, one case after another."""

    models: Models
    case: Case
    bridge: Bridge = field(init=False)
    language: LanguageModel = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        language, case = self.models.language, self.case
        width = int(self.models.visual.class_embedding.shape[0])
        side = pooled_grid(1000, 1000, case.visual)
        module = Mlp(hidden=language.width).build(width, language.width, 0, Grid(*side))
        self.bridge = Bridge(module, layer=case.layer).to(language.device)
        self.language = replace(language, recompute=case.recompute)
        self.optimizer = torch.optim.AdamW(self.bridge.parameters(), 3e-4, (0.9, 0.95), fused=language.device == "cuda")

    def said(self) -> list[Said]:
        """A step's captions: random tokens behind the images."""
        low, high = self.case.text
        vocabulary = self.language.model.config.vocab_size
        lengths = self.random.integers(low, high + 1, self.case.captions)
        spoken = [self.random.integers(3, vocabulary, int(length) - 1).tolist() for length in lengths]
        return [self.language.said(ids, True, number // self.case.per_image) for number, ids in enumerate(spoken)]

    def step(self, pixels: torch.Tensor) -> Layout:
        """Forward, backward, and the connector moved."""
        with numerics(self.models.precision, self.language.device):
            shown = self.language.show(self.bridge, self.models.features(pixels, self.case.visual))
            layout = lay_out(self.said(), shown.places, pack=self.case.pack, share=self.case.share)
            logits = self.language.label_logits(layout, shown, self.bridge)
            labels = torch.from_numpy(layout.labels).to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        with numerics(self.models.precision, self.language.device):
            torch.autograd.backward(loss)
        self.optimizer.step()
        return layout

    def flops(self, layout: Layout) -> float:
        """Useful ones of a step with this layout."""
        visual = int((layout.visual >= 0).sum())
        text = int((layout.documents >= 0).sum()) - visual
        effort = Effort.of(self.language, self.case.layer, self.models.precision)
        images = self.case.captions // self.case.per_image
        patches = int(self.models.visual.positional_embedding.shape[0])
        tower = 2 * images * patches * _weights([self.models.visual.transformer])
        connector = 6 * visual * _weights([self.bridge.connector])
        return effort.flops(visual, text, len(layout.labels)) + tower + connector


def _weights(parts: Iterable[torch.nn.Module]) -> int:
    return sum(weight.numel() for part in parts for weight in part.parameters())


@dataclass(frozen=True)
class Measured:
    """One case."""

    captions: float
    """A second."""
    tokens: float
    """Places with something, a second."""
    tflops: float
    waiting: float
    """Share of the time."""
    filled: float
    """Share of the places where something stands."""
    memory: float
    """Most GiB at a time; 0 where the device does not count."""


def measure(models: Models, case: Case, steps: int, warmup: int, workers: int) -> Measured:
    """Run steps and look at the clock."""
    device, training = models.language.device, Training(models, case)
    images = -(-case.captions // case.per_image)
    pictures = Pictures((steps + warmup) * images, models.preprocess)
    # What is decoded before the clock starts hides waiting: at most a quarter of the steps that are timed.
    workers = min(workers, max(1, steps // 4)) if workers else 0
    ahead: dict[str, Any] = {"prefetch_factor": 1} if workers else {}
    loader = torch.utils.data.DataLoader(
        pictures, batch_size=images, num_workers=workers, pin_memory=device == "cuda", **ahead
    )
    batches = iter(loader)
    for pixels in itertools.islice(batches, warmup):
        training.step(pixels.to(device, non_blocking=True))
    _settle(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began, waited, layouts = time.perf_counter(), 0.0, []
    for _ in range(steps):
        asked = time.perf_counter()
        pixels = next(batches)
        waited += time.perf_counter() - asked
        layouts.append(training.step(pixels.to(device, non_blocking=True)))
    _settle(device)
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    tokens = sum(int((layout.documents >= 0).sum()) for layout in layouts)
    filled = statistics.fmean(layout.efficiency for layout in layouts)
    flops = sum(training.flops(layout) for layout in layouts)
    return Measured(
        steps * case.captions / seconds, tokens / seconds, flops / seconds / 1e12, waited / seconds, filled, memory
    )


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def verdicts(found: dict[str, Measured]) -> Iterator[str]:
    """What became of the bars whose cases were run."""
    for name, other, least in BARS:
        if name not in found or (other is not None and other not in found):
            continue
        value = found[name].captions / (found[other].captions if other else 1.0)
        said = f"{name} over {other}" if other else f"{name}: captions/s"
        yield f"{said}: {value:.2f}, asked for {least}: {'met' if value >= least else 'MISSED'}"
    for name, measured in found.items():
        if measured.waiting > MOST_WAITING:
            yield f"{name}: waits {measured.waiting:.1%} of the time, asked for at most {MOST_WAITING:.0%}: MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all of them")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: no bar is looked at")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(12, os.cpu_count() or 1), help="processes that decode")
    parser.add_argument("--peak-tflops", type=float, help="of a card that is not known here")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing is measured; --device cpu --tiny shows that the code runs")
    card = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    peak = given.peak_tflops or next((value for name, value in PEAKS.items() if name in card), None)
    chosen = {name: CASES[name].small() if given.tiny else CASES[name] for name in given.case or CASES}
    print(f"{card}, torch {torch.__version__}, {given.dtype}, {given.workers} workers, {given.steps} steps\n")
    head = ("case", "captions/s", "tokens/s", "TFLOP/s (4N)", "MFU (4N)", "waiting", "places filled", "peak GiB")
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    found: dict[str, Measured] = {}
    models: Models | None = None
    for name, case in chosen.items():
        if models is None or LANGUAGES[case.language]["hidden_size"] != models.language.width:
            models = None  # frees the last one first
            models = Models.made(case.language, given.device, given.dtype)
        got = found[name] = measure(models, case, given.steps, given.warmup, given.workers)
        share = f"{got.tflops / peak:.1%}" if peak else "peak unknown"
        cells = (f"{got.captions:.2f}", f"{got.tokens:.0f}", f"{got.tflops:.4g}", share, f"{got.waiting:.1%}")
        print("| " + " | ".join([name, *cells, f"{got.filled:.1%}", f"{got.memory:.1f}"]) + " |", flush=True)
    if not given.tiny:
        print("\n" + "\n".join(verdicts(found)))


if __name__ == "__main__":
    main()
