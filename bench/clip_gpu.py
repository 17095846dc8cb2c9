"""CLIP scoring on a GPU: pairs a second end to end from tars, and of the model alone on resident tensors, with MFU.

    python bench/clip_gpu.py                               ViT-B/32 and ViT-L/14, bf16 autocast, on the CUDA device
    python bench/clip_gpu.py --model ViT-L-14 --dtype bf16 --compile
    python bench/clip_gpu.py --device cpu --model tiny     the same path in small, to see that it runs

A plain script: it needs torch, open_clip_torch, pyarrow, pydantic, blake3, orjson, xxhash and zstandard, and starts
no Ray.

Models have the named shapes and random weights. Pairs are generated: JPEGs of `--side` px and captions of 4 to 20
words, in tars of 1,024 pairs. Three numbers a model, each the median of `--rounds` after a warm-up:

- end to end: our tar reading (which digests and indexes the shard), then the stage: decode, preprocess, tokenise, copy,
  both towers, copy back, cosines; two shards at once, as a GPU actor has two slices before it (`--in-flight`);
- decode alone: the same images to pixels by the same threads, without a model: what the end to end cannot exceed;
- model alone: both towers on tensors that lie on the device, in the stage's own shapes.

MFU is (FLOPs of the matrix products and convolutions of both towers as run) x pairs/s / peak; the peak is known for
some GPUs, else named with `--peak-tflops`. It is also checked that an embedding does not depend on its neighbours.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import torch  # noqa: E402

from pipeline.fingerprints import SLICE_BYTES, SLICE_ROWS  # noqa: E402
from pipeline.shards import Container, ShardScan  # noqa: E402
from stages.alignment.clip.stage import Clip  # noqa: E402
from stages.clip_model.images import prepared  # noqa: E402
from stages.clip_model.model import IMAGES_AT_ONCE, TEXTS_AT_ONCE, ClipModel, upright_rgb  # noqa: E402

PEAKS = {"H200": 989.0, "H100 80GB HBM3": 989.0, "H100 PCIe": 756.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bf16 TFLOP/s as NVIDIA states them."""
TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
HEAD = (
    *("model", "end to end pairs/s", "decode alone images/s", "model alone pairs/s", "end to end / model"),
    *("GFLOP a pair", "TFLOP/s", "MFU", "bits independent of neighbours"),
)
PER_TAR = 1024
WORDS = "a the two old red small dog child street house boat river with near under holds stands photo market tree"


def write_model(name: str, folder: Path) -> Path:
    """A model of this shape with random weights, as open_clip reads it from a folder."""
    import open_clip
    from safetensors.torch import save_file

    config = TINY if name == "tiny" else open_clip.get_model_config(name)
    torch.manual_seed(0)
    network = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    mean, std = list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD)
    facts = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_tars(folder: Path, pairs: int, side: int) -> list[Path]:
    """Tars of generated pairs; 64 pictures in turn, since only their decoding counts."""
    from PIL import Image

    noise = np.random.Generator(np.random.Philox(0))
    pictures = []
    for _ in range(64):
        coarse = noise.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    paths = []
    for start in range(0, pairs, PER_TAR):
        paths.append(folder / f"{start // PER_TAR:05d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for number in range(start, min(pairs, start + PER_TAR)):
                caption = " ".join([*noise.choice(WORDS.split(), int(noise.integers(4, 20))), str(number)]).encode()
                for suffix, content in (("jpg", pictures[number % 64]), ("txt", caption)):
                    member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return paths


def batches(stage: Clip, tars: list[Path]) -> "list[pa.RecordBatch]":
    """Read tars as a worker does."""
    found = []
    for tar in tars:
        for piece in ShardScan(Container(str(tar), "tar"), SLICE_BYTES, SLICE_ROWS):
            columns = [piece.images, piece.index["caption"].combine_chunks()]
            found.append(pa.record_batch(columns, pa.schema(stage.reads)))
    return found


def end_to_end(stage: Clip, score: Callable[[Any], Any], tars: list[Path], in_flight: int) -> float:
    """Pairs a second from tar bytes to columns; every shard is read when it is its turn, so many at once."""

    def scored(tar: Path) -> int:
        pairs = 0
        for batch in batches(stage, [tar]):
            assert score(batch)["clip_reason"].null_count == batch.num_rows
            pairs += batch.num_rows
        return pairs

    began = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as threads:
        pairs = sum(threads.map(scored, tars))
    return pairs / (time.perf_counter() - began)


def decode_alone(model: ClipModel, images: list[bytes]) -> float:
    """Images a second from bytes to pixels, by as many threads as feed a GPU."""
    began = time.perf_counter()
    for pixels in prepared(images, lambda image: model.pixels(upright_rgb(image)), 256, ahead=True):
        assert not isinstance(pixels, str)
    return len(images) / (time.perf_counter() - began)


def resident(model: ClipModel, images: list[bytes], captions: list[str]) -> list[tuple[Callable[..., Any], Any, int]]:
    """(encoder, tensor on the device, rows of it that count) of every pass that the stage makes over some pairs."""
    passes: list[tuple[Callable[..., Any], Any, int]] = []
    rows = IMAGES_AT_ONCE[model.device]
    pixels = [model.pixels(upright_rgb(image)) for image in images[:rows]]
    batch = model.uploaded(pixels)
    passes += [(model._encode_image, batch, rows)] * (len(images) // rows)
    tower = model._texts
    run = tower.run

    def noted(encode: Callable[..., Any], tokens: Any) -> Any:
        passes.append((encode, tokens.to(model.device), 0))
        return run(encode, tokens)

    tower.run = noted
    tower.features(captions)
    tower.run = run
    return passes


def model_alone(model: ClipModel, passes: list[tuple[Callable[..., Any], Any, int]]) -> float:
    """Pairs a second of both towers, nothing decoded or copied."""
    settle(model.device)
    began = time.perf_counter()
    for encode, batch, _ in passes:
        model._run(encode, batch)
    settle(model.device)
    return sum(rows for _, _, rows in passes) / (time.perf_counter() - began)


def settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def gigaflops(model: ClipModel, passes: list[tuple[Callable[..., Any], Any, int]]) -> float:
    """GFLOPs per pair of what these passes run, counted by torch on its operators; multiply and add are 2."""
    from torch.utils.flop_counter import FlopCounterMode

    plain = ClipModel(model.network, model.preprocess, model.tokenize, model.device, model.dtype, model.threads)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one operator is none that torch knows how to count
    try:
        with FlopCounterMode(display=False) as counter:
            for encode, batch, _ in passes:
                plain._run(model.network.encode_image if encode is model._encode_image else encode, batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops()) / sum(rows for _, _, rows in passes) / 1e9


def independent(model: ClipModel, images: list[bytes], captions: list[str]) -> bool:
    """Whether embeddings keep their bits among other neighbours."""
    order = np.random.Generator(np.random.Philox(1)).permutation(len(images))[: len(images) // 3]
    fresh = ClipModel(
        model.network, model.preprocess, model.tokenize, model.device, model.dtype, model.threads, model.compiled
    )
    one = fresh.embed_images([images[place] for place in order])[0]
    other = fresh.embed_texts([captions[place] for place in order])[0]
    return bool(
        (one == model.embed_images(images)[0][order]).all() and (other == model.embed_texts(captions)[0][order]).all()
    )


def peak(options: argparse.Namespace) -> float | None:
    if options.peak_tflops or options.device == "cpu":
        return float(options.peak_tflops) if options.peak_tflops else None
    name = torch.cuda.get_device_name()
    return next((value for known, value in PEAKS.items() if known in name), None)


def measure(name: str, options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """All numbers of one model."""
    tars = write_tars(home, options.pairs, options.side)
    stage = Clip(model=str(write_model(name, home / name)), device=options.device, dtype=options.dtype,
                 threads=options.threads, compile=options.compile)  # fmt: skip
    model, score = stage.load(), stage.open()
    rows = [
        row for batch in batches(stage, tars) for row in zip(*(column.to_pylist() for column in batch), strict=True)
    ]
    images, captions = [image for image, _ in rows], [caption for _, caption in rows]
    end_to_end(stage, score, tars[:1], 1)  # compiles, loads kernels, fills pinned buffers

    def median(measured: Callable[[], float]) -> float:
        return statistics.median(measured() for _ in range(options.rounds))

    def whole() -> float:
        model._texts.known.clear()  # captions of an earlier round would come for nothing
        model._texts.bytes = 0
        return end_to_end(stage, score, tars, options.in_flight)

    facts: dict[str, Any] = {"end_to_end": median(whole), "decode": median(lambda: decode_alone(model, images))}
    model._texts.known.clear()
    passes = resident(model, images, captions)
    facts["model"] = median(lambda: model_alone(model, passes))
    facts["gflops"] = gigaflops(model, passes)
    facts["tflops"] = facts["gflops"] * facts["model"] / 1e3
    top = peak(options)
    facts["mfu"] = facts["tflops"] / top if top else None
    facts["independent"] = independent(model, images[:600], captions[:600])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["ViT-B-32", "ViT-L-14"], help="names of open_clip's, or tiny")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", default="amp_bf16", choices=("fp32", "fp16", "bf16", "amp_bf16"))
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the model on a CPU")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--pairs", type=int, default=16_384)
    parser.add_argument("--side", type=int, default=384, help="px of the generated JPEGs")
    parser.add_argument("--in-flight", type=int, help="shards at once; default: 2 before a GPU, 1 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float)
    options = parser.parse_args()
    options.in_flight = options.in_flight or (2 if options.device == "cuda" else 1)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; run this where one is, or see the path in small: --device cpu --model tiny")
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    rows = f"{IMAGES_AT_ONCE[options.device]} images and {TEXTS_AT_ONCE[options.device]} captions"
    print(
        f"{device}, {os.cpu_count()} CPU cores, torch {torch.__version__}, {options.dtype}, compile {options.compile}, "
        f"{options.in_flight} in flight;"
    )
    print(f"{options.pairs} pairs of {options.side} px, passes of {rows}, medians of {options.rounds}\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            facts = measure(name, options, Path(folder))
        mfu = f"{facts['mfu']:.1%}" if facts["mfu"] is not None else "peak not known"
        rates = " | ".join(f"{facts[rate]:.4g}" for rate in ("end_to_end", "decode", "model"))
        print(f"| {name} | {rates} "
              f"| {facts['end_to_end'] / facts['model']:.2f} | {facts['gflops']:.2f} | {facts['tflops']:.1f} | {mfu} "
              f"| {'yes' if facts['independent'] else 'NO'} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
