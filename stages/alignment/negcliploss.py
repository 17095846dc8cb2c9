"""negCLIPLoss (Wang et al., arXiv:2405.19547): the CLIP score less what the pair's parts score with everything else.

    s_i = <f_i, g_i> - T/2 [ log sum_j exp(<f_i, g_j> / T) + log sum_j exp(<f_j, g_i> / T) ]

over the j of a batch, i among them, averaged over K batches of B pairs; f are image and g text embeddings. An image or
a text that is near to everything loses. The authors cut the pool at random into batches of B, K times over, so that
each pair is compared with others than its neighbour is. Here batch k of pair i is i and the B - 1 other reference pairs
with the smallest hash(seed, uid, k): a score depends on the pair and the fit alone. The reference is the pool, or
65,536 pairs of it; in a pool below B every pair is in every batch, as with the authors. Pairs of equal content count as
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from schemas.columns import CONTENT_HASH, IMAGE_EMBEDDING, NEGCLIPLOSS, TEXT_EMBEDDING
from schemas.tables import POOL_ROLE
from stages.fit import Array, Fit
from stages.fitted_stage import Examples, FittedStage
from stages.noise import uniform_noise
from stages.stage import Scorer
from stages.vectors import Doubles, Vectors, blocks, dots, reasons, row_dots, scored, vectors, whole_rows

REFERENCES_AT_ONCE = 4096
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """The pairs that others are compared with."""

    images: Vectors
    texts: Vectors
    """(r, d) each."""
    batches: Places
    """(k, m) places of each batch's pairs by their hash, m = min(B, r)."""
    size: int
    """B: pairs of a batch, the scored one included."""

    @property
    def members(self) -> npt.NDArray[np.float64]:
        """(r, k) 1 where a pair is one of a batch's first B - 1."""
        found = np.zeros((len(self.images), len(self.batches)))
        for number, batch in enumerate(self.batches):
            found[batch[: self.size - 1], number] = 1
        return found


def draw_batches(uids: Sequence[str], size: int, count: int, seed: int) -> Places:
    """(k, m) places of the m = min(size, n) uids with the smallest hash(seed, uid, k), smallest first.

    One batch where it has room for all n and one more.
    """
    orders = [
        np.argsort(uniform_noise(uids, seed, f"negcliploss {number}"), kind="stable")[:size]
        for number in range(count if len(uids) >= size else 1)
    ]
    return np.array(orders, np.int64)


def negcliploss(images: Vectors, texts: Vectors, own: Places, reference: Reference, temperature: float) -> Doubles:
    """(n,) scores of n pairs, at most 0.

    Args:
        images: (n, d), unit norm.
        texts: (n, d), unit norm.
        own: (n,) each pair's place in the reference, -1 where it is not there.
        reference: the batches.
        temperature: T, not below 0.005: smaller ones leave the range of float64.
    """
    members = reference.members
    cosine = row_dots(images, texts)
    inside = np.where(own[:, None] >= 0, members[own], 0.0)
    full = reference.batches.shape[1] == reference.size
    spares = reference.batches[:, -1] if full else None
    total = np.zeros(inside.shape)
    for one, other in ((images, reference.texts), (texts, reference.images)):
        sums = np.zeros(inside.shape)
        for part in blocks(len(other), REFERENCES_AT_ONCE):
            sums += _weights(dots(one, other[part]), temperature) @ members[part]
        sums += np.where(inside, 0.0, _weights(cosine, temperature)[:, None])
        if spares is not None:  # a pair that is one of the first B - 1 leaves room for one more
            sums += np.where(inside, _weights(dots(one, other[spares]), temperature), 0.0)
        total += np.log(sums)
    found: Doubles = np.minimum(cosine - 1 - temperature / 2 * total.mean(axis=1), 0.0)
    return found


def _weights(cosines: Doubles, temperature: float) -> Doubles:
    """exp((cosine - 1) / T): cosines end at 1, so no running maximum is needed; the 1 / T comes back after the log."""
    found: Doubles = np.exp((cosines - 1) / temperature)
    return found


class NegCLIPLoss(FittedStage):
    """negCLIPLoss against pairs of the pool, from the embeddings alone; at most 0, higher is better.

    Learned: up to 65,536 distinct pairs with the smallest hash(seed, uid), and which of them are in which batch.
    """

    kind: Literal["negcliploss"] = "negcliploss"
    temperature: float = Field(default=0.01, ge=0.005, le=1)
    """T: 0.01 for OpenAI's CLIP, 0.07 for DFN; 1 / the model's own logit scale is the loss it was trained with."""
    batch: int = Field(default=32_768, ge=2)
    """B: pairs of one batch."""
    batches: int = Field(default=10, ge=1)
    """K: batches to average over."""

    reads: ClassVar[tuple[pa.Field, ...]] = (CONTENT_HASH, IMAGE_EMBEDDING, TEXT_EMBEDDING)
    writes: ClassVar[tuple[pa.Field, ...]] = (NEGCLIPLOSS,)
    learns_from: ClassVar[tuple[str, ...]] = (POOL_ROLE,)
    batch_rows: ClassVar[int] = 1024

    def learn(self, examples: Examples) -> Fit:
        """Keep the pairs, each content once, and draw the batches."""
        rows = examples.rows[POOL_ROLE].unique(CONTENT_HASH.name, keep="first", maintain_order=True)
        arrays: dict[str, Array] = {
            "images": vectors(rows[IMAGE_EMBEDDING.name].to_arrow()),
            "texts": vectors(rows[TEXT_EMBEDDING.name].to_arrow()),
            "contents": _contents(rows[CONTENT_HASH.name].to_list()),
            "batches": draw_batches(rows["uid"].to_list(), self.batch, self.batches, examples.seed),
        }
        return Fit(arrays, {"pairs": len(rows)})

    def open_with(self, fit: Fit, source: str) -> Scorer:
        """The scorer; holds the reference in float16."""
        arrays = fit.arrays
        reference = Reference(arrays["images"], arrays["texts"], arrays["batches"], self.batch)
        width = reference.images.shape[1]
        places = {content: place for place, content in enumerate(arrays["contents"].tolist())}

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            whole = whole_rows([batch[field.name] for field in self.reads])
            sound = batch.filter(pa.array(whole))
            contents = _contents(sound[CONTENT_HASH.name].to_pylist()).tolist()
            own = np.array([places.get(content, -1) for content in contents], np.int64)
            images, texts = (vectors(sound[name], width) for name in (IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name))
            values = negcliploss(images, texts, own, reference, self.temperature)
            return pa.record_batch([scored(values, whole, NEGCLIPLOSS.type), reasons(whole)], self.returns())

        return score


def _contents(hashes: Sequence[str]) -> Places:
    """(n,) the first 64 bits of hexadecimal hashes."""
    return np.array([int(text[:16], 16) for text in hashes], np.uint64).view(np.int64)
