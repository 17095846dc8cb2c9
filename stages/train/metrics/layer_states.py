"""Hidden states of held-out pairs after each layer of the language model, options of the connector included.

Layer k is counted from 1; its states are what layer k returns, the last ones before the model's final norm. Visual
states exist from where images go in. Text states are those of caption tokens alone: what a template says, and the
begin token with its huge norm, is the same for every pair.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.noise import uniform_noise
from stages.train.decoder_layers import decoder_layers
from stages.train.hearing import Heard, Sample, hear
from stages.train.layout import NONE, Layout
from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.loop import Frozen

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
BYTES = 2**30
"""Of states kept at a time; with large models the pairs are gone through several times, some layers each time."""


@dataclass(frozen=True)
class LayerStates:
    """States of one layer over all pairs."""

    layer: int
    visual: Singles
    """(r, d)"""
    text: Singles
    """(s, d)"""
    visual_pairs: Integers
    """(r,) number of the pair."""
    text_pairs: Integers
    """(s,) the same."""

    def means(self) -> tuple[Doubles, Doubles]:
        """(n, d) mean visual and (n, d) mean text state per pair."""
        return pair_means(self.visual, self.visual_pairs), pair_means(self.text, self.text_pairs)


def pair_means(states: Singles, pairs: Integers) -> Doubles:
    """(n, d) means of (r, d) states by pair; every pair from 0 on has one."""
    sums = np.zeros((pairs.max() + 1, states.shape[1]))
    np.add.at(sums, pairs, states.astype(np.float64))
    means: Doubles = sums / np.bincount(pairs)[:, None]
    return means


def chosen_pairs(corpus: Corpus, most: int, seed: int) -> list[int]:
    """One sample per image with two label tokens or more, by hash(seed, key), at most so many; in corpus order."""
    order = np.argsort(uniform_noise(corpus.keys, seed, "pairs of layer metrics"), kind="stable").tolist()
    first: dict[str, int] = {}
    for i in order:
        if corpus.offsets[i + 1] - corpus.offsets[i] + corpus.whole[i] >= 2:
            first.setdefault(corpus.images[i], i)
    return sorted(list(first.values())[:most])


def layer_states(
    bridge: "Bridge", frozen: "Frozen", corpus: Corpus, ids: Sequence[int], images: Sequence[str], batch: int
) -> Iterator[LayerStates]:
    """States of some samples behind images (n,), layer after layer from where images go in."""
    total, tokens = len(decoder_layers(frozen.language.model)), sum(len(corpus.caption(i)) for i in ids)
    shown = frozen.language.show(bridge, frozen.embeddings([images[0]]))
    first = shown.layer if shown.placement == "insert" else total - (shown.tokens.shape[1] - shown.soft)
    states = len(ids) * shown.places + tokens
    at_once = max(1, BYTES // (4 * frozen.language.width * states))
    for start in range(first, total, at_once):
        yield from _some_layers(bridge, frozen, corpus, ids, images, batch, range(start, min(start + at_once, total)))


def _some_layers(
    bridge: "Bridge",
    frozen: "Frozen",
    corpus: Corpus,
    ids: Sequence[int],
    images: Sequence[str],
    batch: int,
    layers: range,
) -> Iterator[LayerStates]:
    found: dict[int, list[tuple[Singles, Singles]]] = {layer: [] for layer in layers}
    visual_pairs, text_pairs = [], []
    for start in range(0, len(ids), batch):
        with listening(frozen.language.model, layers) as kept:
            some, behind = ids[start : start + batch], images[start : start + batch]
            heard, shown = hear_samples(bridge, frozen, corpus, some, behind)
        visual, (text, owners) = heard.layout.visual.ravel(), text_places(heard.layout)
        seen = visual != NONE
        visual_pairs.append(start + visual[seen] // shown.places)
        text_pairs.append(start + owners)
        for layer in layers:
            flat = kept[layer].flatten(0, 1).float().cpu().numpy()
            found[layer].append((flat[seen], flat[text]))
    for layer, parts in found.items():
        images_side, text_side = (np.concatenate(side) for side in zip(*parts, strict=True))
        yield LayerStates(layer + 1, images_side, text_side, np.concatenate(visual_pairs), np.concatenate(text_pairs))


def hear_samples(
    bridge: "Bridge", frozen: "Frozen", corpus: Corpus, ids: Sequence[int], images: Sequence[str]
) -> "tuple[Heard, Shown]":
    """Samples of a corpus behind images (n,) by hash, and these as the model saw them."""
    heard = hear(bridge, frozen, [_sample(corpus, i, image) for i, image in zip(ids, images, strict=True)])
    assert heard.shown is not None
    return heard, heard.shown


def _sample(corpus: Corpus, number: int, image: str) -> Sample:
    return Sample(corpus.caption(number), bool(corpus.whole[number]), image)


def mean_outputs(bridge: "Bridge", frozen: "Frozen", corpus: Corpus, ids: Sequence[int], batch: int) -> Doubles:
    """(n, width) mean over tokens of what the connector says about some samples' images."""
    found = []
    for start in range(0, len(ids), batch):
        some = ids[start : start + batch]
        _, shown = hear_samples(bridge, frozen, corpus, some, [corpus.images[i] for i in some])
        found.append(shown.tokens.double().mean(dim=1).cpu().numpy())
    return np.concatenate(found)


def caption_states(bridge: "Bridge", frozen: "Frozen", corpus: Corpus, ids: Sequence[int], batch: int) -> list[Doubles]:
    """Per layer from 0, (n, width) mean state of some samples' caption tokens at its input, without any image.

    At the input of layer 0 these are the embeddings.
    """
    import torch

    model, device = frozen.language.model, frozen.language.device
    layers = range(len(decoder_layers(model)) - 1)
    found: list[list[Doubles]] = [[] for _ in range(len(layers) + 1)]
    for start in range(0, len(ids), batch):
        said = [Sample(corpus.caption(i), True, "") for i in ids[start : start + batch]]
        with listening(model, layers) as kept:
            layout = hear(bridge, frozen, said).layout
        places, owners = text_places(layout)
        words = torch.from_numpy(layout.tokens.ravel()[places]).to(device)
        states = [model.get_input_embeddings()(words)]
        states += [kept[layer].flatten(0, 1)[torch.from_numpy(places).to(device)] for layer in layers]
        for layer, state in enumerate(states):
            found[layer].append(pair_means(state.detach().float().cpu().numpy(), owners))
    return [np.concatenate(parts) for parts in found]


def text_places(layout: Layout) -> tuple[Integers, Integers]:
    """(s,) places that hold caption tokens, and (s,) the caption of each: where labels but the first are predicted."""
    inside = np.concatenate([[False], layout.samples[1:] == layout.samples[:-1]])
    return layout.places[inside], layout.samples[inside]


@contextlib.contextmanager
def listening(model: Any, layers: Sequence[int]) -> "Iterator[dict[int, torch.Tensor]]":
    """What decoder layers return in the largest forward pass inside, after everything else that acts on their outputs.

    The largest: a model may be tried out on a few tokens before it is used.

    A layer's hook is set when the layer is entered, so that it stands behind those of options, set before that.
    """
    heard: dict[int, torch.Tensor] = {}
    with contextlib.ExitStack() as stack:

        def enter(layer: int, module: Any) -> None:
            def keep(_: Any, __: Any, output: Any) -> None:
                states = (output[0] if isinstance(output, tuple) else output).detach()
                if layer not in heard or states.numel() > heard[layer].numel():
                    heard[layer] = states

            stack.callback(module.register_forward_hook(keep).remove)

        for layer in layers:
            module = decoder_layers(model)[layer]
            hook = module.register_forward_pre_hook(lambda module, _, layer=layer: enter(layer, module))
            stack.callback(hook.remove)
        yield heard
