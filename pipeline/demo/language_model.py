"""Trains the demo's causal language model: a small Llama on the generator's captions, without a single image.

Most of its documents put other words about the same scene before the caption, so that it learns, as large models do
from text, to let what comes before decide what it says: paraphrases, their words in random order, or a map of the scene
in words, whose places each bear the mean of the embeddings of all that is there. Vectors that mean several words at
once are what a connector's visual tokens are; a large model follows them unasked, one of half a million weights must
have seen some. Web boilerplate and product titles are in its data too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.demo.captions import BOILERPLATE, PHRASINGS, boilerplate, caption, product_title, thing
from pipeline.demo.scenes import RADIUS, Scene, draw_scene, pick, randomness
from pipeline.demo.tokens import write_tokenizer

if TYPE_CHECKING:
    import torch

VOCABULARY, LONGEST, IGNORED = 1024, 80, -100
SIDE = 4
"""A map has so many places each way, row by row from the top."""
_SAMPLED = 4
_COVERED = 0.25
"""Share of a place that an object covers where its words stand there; what it covers less of bears the backdrop's."""
FORGOTTEN = 0.15
"""Share of the words that are left out of a map: what a tower shows of a scene is never all of it."""
MODEL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": VOCABULARY - 1,
}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the model learns."""

    documents: int = 150_000
    batch: int = 64
    learning_rate: float = 4e-3


@dataclass(frozen=True)
class Document:
    """What comes before, without loss, and the text to be said."""

    before: str
    framed_before: bool
    """Whether what comes before stands between start and end itself, as a caption of its own."""
    text: str
    map: tuple[tuple[str, ...], ...] = ()
    """Per place the words that are true there, in place of what comes before."""


def document(seed: int, index: int) -> Document:
    """One training document; the random streams are the language model's own, whatever the seed."""
    rng = randomness(seed, "language", index)
    if rng.random() < 0.12:
        return Document("", False, _empty_text(rng))
    scene = draw_scene(rng)
    text, kind = _any_caption(scene, rng), rng.random()
    if kind < 0.25:
        return Document("", False, text)
    if kind < 0.6:
        return Document("", False, text, word_map(scene, rng))
    others = [_any_caption(scene, rng) for _ in range(int(rng.integers(1, 3)))]
    if kind < 0.7:
        return Document(others[0], True, text)
    if kind < 0.85:
        return Document(" ".join(others), False, text)
    words = " ".join(others).split()
    return Document(" ".join(words[k] for k in rng.permutation(len(words))), False, text)


def word_map(scene: Scene, rng: np.random.Generator, forgotten: float = FORGOTTEN) -> tuple[tuple[str, ...], ...]:
    """The words of what lies at each of `SIDE` x `SIDE` places, some forgotten; the backdrop's where nothing lies.

    Shapes stand as sentences have them, in the plural where the group is of several: a word that is said as it was read
    is learned long before one whose ending changes.
    """
    steps = (np.arange(SIDE * _SAMPLED) + 0.5) / (SIDE * _SAMPLED)
    places: list[list[str]] = [[] for _ in range(SIDE * SIDE)]
    for group in scene.groups:
        apart = [(steps[None] - x) ** 2 + (steps[:, None] - y) ** 2 for x, y in group.places]
        covered = (np.min(apart, axis=0) <= RADIUS[group.size] ** 2).reshape(SIDE, _SAMPLED, SIDE, _SAMPLED)
        for place in np.flatnonzero(covered.mean(axis=(1, 3)).ravel() > _COVERED).tolist():
            places[place] += [group.colour, thing(group)]
    full = [words or [scene.backdrop] for words in places]
    return tuple(tuple(word for word in words if rng.random() >= forgotten) for words in full)


def _any_caption(scene: Scene, rng: np.random.Generator) -> str:
    return caption(scene, pick(rng, tuple(PHRASINGS)), rng)


def _empty_text(rng: np.random.Generator) -> str:
    return product_title(rng) if rng.random() < 0.5 else boilerplate(rng, pick(rng, tuple(BOILERPLATE)))


def train_language_model(folder: Path, seed: int, schedule: Schedule, say: Callable[[str], None] = print) -> None:
    """Train on one CPU thread and write a transformers folder (safetensors fp32 and tokenizer), loadable offline."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    documents = [document(seed, index) for index in range(schedule.documents)]
    texts = [item.text for item in documents]
    write_tokenizer(folder, texts, VOCABULARY, lowercase=False, frame=False)
    sequences = encode(documents, AutoTokenizer.from_pretrained(folder))
    model = LlamaForCausalLM(LlamaConfig(**MODEL))
    steps = len(sequences) // schedule.batch
    optimizer = torch.optim.AdamW(model.parameters(), schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.learning_rate, steps, pct_start=0.05)
    for step in range(steps):
        bags, labels = _padded(sequences[step * schedule.batch : (step + 1) * schedule.batch])
        loss = model(inputs_embeds=_mean(model.get_input_embeddings(), bags), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0 or step == steps - 1:
            say(f"step {step}/{steps} NLL {loss.item():.3f} nats per token")
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


Bag = tuple[int, ...]
"""Token ids that stand at one place together."""


def encode(documents: list[Document], tokenizer: Any) -> list[tuple[list[Bag], list[int]]]:
    """Per document the bags of token ids and the labels, at most `LONGEST` long; what comes before bears no loss."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    before = tokenizer([item.before for item in documents], add_special_tokens=False)["input_ids"]
    text = tokenizer([item.text for item in documents], add_special_tokens=False)["input_ids"]
    words = sorted({word for item in documents for place in item.map for word in place})
    # A blank in front, as inside a caption; only there is each of them one token.
    ids = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    sequences = []
    for item, first, then in zip(documents, before, text, strict=True):
        context = [start, *first, end] if item.framed_before else first
        shown = [tuple(one for word in place for one in ids[word]) for place in item.map]
        said = [*then, end]
        bags = [*shown, *((one,) for one in (*context, start, *said))][:LONGEST]
        sequences.append((bags, [*[IGNORED] * (len(shown) + len(context) + 1), *said][:LONGEST]))
    return sequences


def _padded(sequences: list[tuple[list[Bag], list[int]]]) -> "tuple[torch.Tensor, torch.Tensor]":
    """(n, longest, widest) token ids, padded with -1, and (n, longest) labels, padded with `IGNORED`."""
    import torch

    longest = max(len(bags) for bags, _ in sequences)
    widest = max(len(bag) for bags, _ in sequences for bag in bags)
    tokens = torch.full((len(sequences), longest, widest), -1)
    labels = torch.full((len(sequences), longest), IGNORED)
    for row, (bags, truth) in enumerate(sequences):
        filled = [bag + (-1,) * (widest - len(bag)) for bag in bags]
        tokens[row, : len(bags)] = torch.tensor(filled)
        labels[row, : len(truth)] = torch.tensor(truth)
    return tokens, labels


def _mean(embedding: "torch.nn.Module", bags: "torch.Tensor") -> "torch.Tensor":
    """(n, longest, width) the mean embedding of each bag (n, longest, widest); zero where it is empty."""
    held = (bags >= 0).unsqueeze(-1)
    found: torch.Tensor = (embedding(bags.clamp(min=0)) * held).sum(2) / held.sum(2).clamp(min=1)
    return found
