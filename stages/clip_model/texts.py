"""Captions to text features: equal ones once, those of like length together, and no more context than they fill.

A text tower that looks only backwards gives the same features whatever stands behind the token that is pooled. So each
caption runs in a context of its own length, rounded up to `STEP` tokens, instead of the whole 77: ViT-B/32 embeds 5
times as many captions a second at 16. Every pass has the same number of rows, filled up where captions run out.

At one shape a row's bits depend neither on its neighbours nor on its place: what a matrix product does with a row
depends on the product's shape alone (found so on CPUs with one and two threads). So an embedding may be remembered.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

STEP = 8
"""Lengths that captions are rounded up to: few shapes, and few tokens of padding."""
CACHE_BYTES = 64 << 20
"""What a worker remembers of captions that it has embedded: 30,000 of 512 numbers."""
POOLED = ("argmax", "eos")
"""Ways to pool that name a token by its content."""

Floats = npt.NDArray[np.float32]
Run = Callable[[Callable[..., "torch.Tensor"], "torch.Tensor"], "torch.Tensor"]
"""Calls an encoder on a batch of tokens, on the right device and in the right numbers; gives float32 there."""


class TextTower:
    """The text side of an open_clip model."""

    def __init__(self, network: Any, tokenize: Callable[[list[str]], "torch.Tensor"], run: Run, rows: int) -> None:
        """`rows` is the number of captions of one forward pass."""
        self.network, self.tokenize, self.run, self.rows = network, tokenize, run, rows
        self.known: OrderedDict[str, Floats] = OrderedDict()
        self.bytes = 0
        self.encoders: dict[int, Callable[..., torch.Tensor]] = {}
        self.turn = threading.Lock()

    def features(self, texts: Sequence[str]) -> Floats:
        """(n, d) features as the model gives them, before any norm; one thread at a time, for what is remembered."""
        with self.turn:
            return self._features(texts)

    def _features(self, texts: Sequence[str]) -> Floats:
        distinct = list(dict.fromkeys(texts))
        found = {text: self.known[text] for text in distinct if text in self.known}
        fresh = [text for text in distinct if text not in found]
        found |= zip(fresh, self._embedded(fresh), strict=True)
        for text in distinct:
            self._remember(text, found[text])
        return np.stack([found[text] for text in texts]) if len(texts) else np.zeros((0, 0), np.float32)

    def _embedded(self, texts: list[str]) -> list[Floats]:
        if not texts:
            return []
        tokens = self.tokenize(texts)
        lengths = self._lengths(tokens)
        order = np.argsort(lengths, kind="stable")
        passes = [
            places[start : start + self.rows]
            for places in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
            for start in range(0, len(places), self.rows)
        ]
        # Nothing is waited for before all passes are on their way to the device.
        outputs = [self._pass(tokens, places, int(lengths[places[0]])) for places in passes]
        rows: list[Floats] = [np.zeros(0, np.float32)] * len(texts)
        for places, output in zip(passes, outputs, strict=True):
            for place, row in zip(places, output.cpu().numpy(), strict=False):
                rows[place] = row.copy()
        return rows

    def _pass(self, tokens: "torch.Tensor", places: npt.NDArray[np.intp], length: int) -> "torch.Tensor":
        filled = np.resize(places, self.rows)
        return self.run(self._encoder(length, tokens.shape[1]), tokens[filled, :length])

    def _lengths(self, tokens: "torch.Tensor") -> npt.NDArray[np.int64]:
        """Tokens up to the one that is pooled, rounded up; the whole context where that is not known."""
        context = tokens.shape[1]
        if self._causal is None:
            return np.full(len(tokens), context)
        _, pool, end = self._causal
        pooled = (tokens if pool == "argmax" else tokens.eq(end).int()).argmax(dim=1).numpy()
        return np.asarray(np.minimum(pooled // STEP * STEP + STEP, context))

    def _encoder(self, length: int, context: int) -> "Callable[..., torch.Tensor]":
        if length not in self.encoders:
            whole = length == context or self._causal is None
            self.encoders[length] = self.network.encode_text if whole else self._shortened(length)
        return self.encoders[length]

    @cached_property
    def _causal(self) -> tuple[Any, str, int] | None:
        """The module with the position table, how it pools, its end token; None if it sees ahead or pools otherwise."""
        from open_clip import CLIP, CustomTextCLIP
        from open_clip.transformer import TextTransformer

        if type(self.network) is CLIP:
            tower, prefix = self.network, "text_"
        else:
            tower, prefix = getattr(self.network, "text", None), ""
            if type(self.network) is not CustomTextCLIP or type(tower) is not TextTransformer:
                return None
        pool = getattr(tower, f"{prefix}pool_type")
        plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
        if not plain or tower.attn_mask is None or pool not in POOLED:
            return None
        return tower, pool, getattr(tower, f"{prefix}eos_id", -1)

    def _shortened(self, length: int) -> "Callable[..., torch.Tensor]":
        """The tower's own forward pass with the beginning of its position table and mask; weights are shared."""
        import torch

        assert self._causal is not None
        tower = self._causal[0]
        short = copy.copy(tower)
        short._parameters, short._buffers = dict(tower._parameters), dict(tower._buffers)
        table = tower.positional_embedding.detach()[:length]
        short._parameters["positional_embedding"] = torch.nn.Parameter(table, requires_grad=False)
        short._buffers["attn_mask"] = tower.attn_mask[:length, :length]
        encoder: Callable[..., torch.Tensor] = short.encode_text if tower is self.network else short
        return encoder

    def _remember(self, text: str, row: Floats) -> None:
        if text in self.known:
            self.known.move_to_end(text)
            return
        self.known[text] = row
        self.bytes += _cost(text, row)
        while self.bytes > CACHE_BYTES:
            self.bytes -= _cost(*self.known.popitem(last=False))


def _cost(text: str, row: Floats) -> int:
    """About what an entry takes: the text, the numbers, the objects around them."""
    return 4 * len(text) + row.nbytes + 250
