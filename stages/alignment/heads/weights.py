"""A head's file: read, checked, applied. numpy only, so that `cuvee check` reads it without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.vectors import Doubles, softmax, unit

HIDDEN = ("identity", "relu")
ACTIVATIONS = ("identity", "sigmoid", "softmax")
NORMALIZE = ("unit", "none")
METADATA = "head"
CONVERT = "`python -m jobs.convert_head IN.pth OUT.safetensors` makes one"


@dataclass(frozen=True)
class Head:
    """Layers of an MLP; a linear head has one."""

    layers: tuple[tuple[Doubles, Doubles], ...]
    """(weight (out, in), bias (out,)) of each."""
    hidden: tuple[str, ...]
    """What follows each layer but the last."""
    activation: str = "identity"
    normalize: str = "unit"
    mean: Doubles | None = None
    std: Doubles | None = None

    @property
    def width(self) -> int:
        """Numbers of one embedding."""
        return int(self.layers[0][0].shape[1])

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return len(self.layers[-1][1])

    def __call__(self, embeddings: Doubles) -> Doubles:
        """(n, width) embeddings to (n, outputs), in float64 so that the order of sums does not show in float32."""
        rows = unit(embeddings) if self.normalize == "unit" else embeddings
        if self.mean is not None and self.std is not None:
            rows = (rows - self.mean) / self.std
        for (weight, bias), follows in zip(self.layers, (*self.hidden, self.activation), strict=True):
            rows = _FOLLOWS[follows](rows @ weight.T + bias)
        return rows


def _sigmoid(rows: Doubles) -> Doubles:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * rows)))  # no overflow at either end


_FOLLOWS = {
    "identity": lambda rows: rows,
    "relu": lambda rows: np.maximum(rows, 0),
    "sigmoid": _sigmoid,
    "softmax": softmax,
}


def read_head(
    file: Path, *, linear: bool, hidden: str | None = None, activation: str | None = None, normalize: str | None = None
) -> Head:
    """Read a head; what is None is taken from the file's metadata.

    Raises:
        RecipeError: no such file, no safetensors, tensors that do not fit each other or the kind, NaN or infinity in
            them, or a hidden activation that is nowhere told.
    """
    tensors, facts = _read(file)
    names = [name for name in tensors if name not in ("mean", "std")]
    wanted = ["weight", "bias"] if linear else _layer_names(len(names) // 2)
    if sorted(names) != sorted(wanted) or not names:
        kind = "linear_head" if linear else "mlp_head"
        raise _refusal(file, f"holds {sorted(tensors)[:8]}; {kind} expects {wanted[:4]}{' ...' * (len(wanted) > 4)}")
    layers = tuple((tensors[weight], tensors[bias]) for weight, bias in zip(wanted[::2], wanted[1::2], strict=True))
    return checked(
        file,
        Head(
            layers,
            _hidden(file, hidden or facts.get("hidden"), len(layers) - 1),
            activation or facts.get("activation", "identity"),
            normalize or facts.get("normalize", "unit"),
            tensors.get("mean"),
            tensors.get("std"),
        ),
    )


def write_head(head: Head, file: Path) -> None:
    """Write a head as `read_head` reads it, in float32."""
    from safetensors.numpy import save

    names = ["weight", "bias"] if len(head.layers) == 1 else _layer_names(len(head.layers))
    values = [values for layer in head.layers for values in layer]
    tensors = dict(zip(names, values, strict=True))
    if head.mean is not None and head.std is not None:
        tensors |= {"mean": head.mean, "std": head.std}
    facts = {"activation": head.activation, "normalize": head.normalize, "hidden": head.hidden}
    # One key of metadata: safetensors writes several in no fixed order, and the file's bytes are its identity.
    metadata = {METADATA: json.dumps(facts, sort_keys=True)}
    written = {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}
    file.write_bytes(save(written, metadata))


def checked(file: Path, head: Head) -> Head:
    """The head, if its parts fit each other and every number is one; `file` stands in the refusal.

    Raises:
        RecipeError: they do not.
    """
    width = head.width if head.layers[0][0].ndim == 2 else 0
    for number, (weight, bias) in enumerate(head.layers):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1] or not weight.size:
            shapes = f"weight {weight.shape} and bias {bias.shape}"
            raise _refusal(file, f"has {shapes} in layer {number}; expected (out, {width or 'in'}) and (out,)")
        width = len(weight)
    if (head.mean is None) != (head.std is None):
        raise _refusal(file, "has one of `mean` and `std`; expected both or neither")
    scales = () if head.mean is None or head.std is None else (head.mean, head.std)
    if any(scale.shape != (head.width,) for scale in scales) or (scales and not (scales[1] > 0).all()):
        raise _refusal(file, f"has `mean` or `std` that are not ({head.width},) with every std above 0")
    if not all(np.isfinite(values).all() for values in (*scales, *(part for layer in head.layers for part in layer))):
        raise _refusal(file, "holds NaN or infinity; take weights that were saved whole")
    for name, known in (("activation", ACTIVATIONS), ("normalize", NORMALIZE)):
        if getattr(head, name) not in known:
            raise _refusal(file, f"says `{name}` is {getattr(head, name)!r}; expected one of {', '.join(known)}")
    if head.activation == "softmax" and head.outputs == 1:
        raise _refusal(file, "has one output, of which a softmax would always make 1; set `activation: sigmoid`")
    return head


def _read(file: Path) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise _refusal(file, f"is not there; name a safetensors file: {CONVERT}")
    tensors = {}
    try:
        with safe_open(file, "np") as opened:
            facts = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
            for name in opened.keys():  # noqa: SIM118  a handle, no mapping
                if (dtype := opened.get_slice(name).get_dtype()) not in ("F16", "F32", "F64"):
                    raise _refusal(file, f"holds {name!r} as {dtype}; expected F16, F32 or F64")
                tensors[name] = opened.get_tensor(name).astype(np.float64)
    except (SafetensorError, OSError) as error:
        raise _refusal(file, f"holds no safetensors ({error}): {CONVERT}") from error
    except ValueError as error:
        raise _refusal(file, f"has metadata under {METADATA!r} that is no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise _refusal(file, f"has metadata under {METADATA!r} that is no JSON object")
    return tensors, facts


def _layer_names(layers: int) -> list[str]:
    return [f"layers.{number}.{part}" for number in range(max(1, layers)) for part in ("weight", "bias")]


def _hidden(file: Path, words: Any, layers: int) -> tuple[str, ...]:
    if not layers:
        return ()
    found = tuple(words) if isinstance(words, list) else (words,) * layers
    if len(found) != layers or any(word not in HIDDEN for word in found):
        told = repr(words) if words else "nowhere"
        raise _refusal(
            file, f"has {layers} hidden layers, and what follows them is told as {told}; set `hidden: relu` or identity"
        )
    return found


def _refusal(file: Path, words: str) -> RecipeError:
    return RecipeError(f"head {str(file)!r} {words}")
