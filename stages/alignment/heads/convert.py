"""Heads as PyTorch saved them, to safetensors: nothing but tensors is ever read from a pickle.

Known by their tensors' names: LAION's aesthetic-predictor (`weight`, `bias`), improved-aesthetic-predictor with and
without ReLU (`layers.N`), and CLIP-based-NSFW-Detector's heads for ViT-B/32, ViT-L/14 (`norm`, `linear_N`) and ViT-H/14
(`layers.N`). All of them were trained on embeddings of norm 1. Any other stack of linear layers is converted if told
what follows its hidden layers.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import RecipeError
from stages.alignment.heads.weights import Head, checked, write_head

SEQUENCES = {
    (0, 2, 4, 6, 7): ("identity",) * 4,
    (0, 3, 6, 9, 11): ("relu",) * 4,
    (0, 3, 6, 9, 12, 15, 16): ("relu",) * 5 + ("identity",),
}
"""Places of the linear layers among the others of a `Sequential`, and what follows each but the last."""
VARIANCE_FLOOR = 1e-10
"""Added to the standard deviation in the NSFW heads' normalisation."""
KERAS = (".h5", ".hdf5", ".keras")


def convert_head(source: Path, target: Path, *, hidden: str | None = None, activation: str | None = None) -> Head:
    """Write `source` (.pth, .pt, .bin) as the safetensors file `target`.

    Args:
        source: a state dict, or a checkpoint with a `state_dict`.
        target: what `linear_head` (one layer) or `mlp_head` (several) reads.
        hidden: `relu` or `identity` after every layer but the last, for a head that is not known by its names.
        activation: `identity`, `sigmoid` or `softmax` after the last layer; default: what is known of the head.

    Raises:
        RecipeError: a Keras file, a pickle that holds more than tensors, or tensors that are no stack of linear layers.
    """
    tensors = _tensors(source)
    prefix, places = _places(source, tensors)
    layers = tuple((tensors.pop(f"{prefix}{place}weight"), tensors.pop(f"{prefix}{place}bias")) for place in places)
    mean, variance = tensors.pop("norm.mean", None), tensors.pop("norm.variance", None)
    if tensors:
        raise RecipeError(f"{str(source)!r} holds {sorted(tensors)[:4]} beside linear layers; such heads are not known")
    nsfw = mean is not None
    head = Head(
        layers,
        _hidden(source, [place for place in places if place], hidden, nsfw=nsfw),
        activation or ("sigmoid" if nsfw else "identity"),
        mean=mean,
        std=None if variance is None else np.sqrt(variance) + VARIANCE_FLOOR,
    )
    write_head(checked(source, head), target)
    return head


def _tensors(source: Path) -> dict[str, Any]:
    import torch

    with source.open("rb") as stream:
        keras = source.suffix in KERAS or stream.read(4) == b"\x89HDF"
    if keras:
        raise RecipeError(
            f"{str(source)!r} is a Keras file, which needs TensorFlow; LAION's NSFW heads are also there as "
            "clip_ViT-L-14_openai_binary_nsfw_head.pth and its like: convert that"
        )
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each raise their own
        raise RecipeError(
            f"{str(source)!r} does not load as tensors alone ({next(iter(str(error).splitlines()), 'empty'):.200}); a "
            "pickle that needs more could run code here: save its `state_dict()`"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not isinstance(found, dict) or not found or not all(map(_is_plain, found, found.values())):
        raise RecipeError(f"{str(source)!r} holds no state dict of tensors: names, and dense real numbers")
    return {name: values.detach().double().numpy() for name, values in found.items()}


def _is_plain(name: object, values: Any) -> bool:
    import torch

    dense = isinstance(values, torch.Tensor) and values.layout == torch.strided and values.device.type == "cpu"
    return isinstance(name, str) and dense and not (values.is_complex() or values.is_quantized)


def _places(source: Path, tensors: dict[str, Any]) -> tuple[str, list[str]]:
    """The common beginning of the layers' names, and what tells them apart, in order."""
    if {"weight", "bias"} == set(tensors):
        return "", [""]
    names = [re.fullmatch(r"(.*?)(\d+)\.weight", name) for name in tensors]
    found = [(match[1], int(match[2])) for match in names if match]
    prefixes = {prefix for prefix, _ in found}
    if len(prefixes) != 1 or any(f"{prefix}{number}.bias" not in tensors for prefix, number in found):
        raise RecipeError(
            f"{str(source)!r} holds {sorted(tensors)[:6]}; expected `weight` and `bias`, or a numbered stack of them"
        )
    return prefixes.pop(), [f"{number}." for number in sorted(number for _, number in found)]


def _hidden(source: Path, places: list[str], hidden: str | None, *, nsfw: bool) -> tuple[str, ...]:
    count = max(0, len(places) - 1)
    if hidden is not None or not count:
        return (hidden or "",) * count
    if nsfw:
        return ("relu",) * count
    numbers = tuple(int(place.rstrip(".")) for place in places)
    if numbers not in SEQUENCES:
        raise RecipeError(
            f"{str(source)!r} has linear layers at {numbers}, no head known here; say what follows each but the last: "
            "`--hidden relu` or `--hidden identity`"
        )
    return SEQUENCES[numbers]
