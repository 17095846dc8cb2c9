"""Trains the demo's causal language model: a small Llama on the generator's captions, without a single image.

A third of its documents put other words about the same scene before the caption (paraphrases, or their words in
random order), so that it learns, as large models do from text, to let what comes before decide what it says. That
is what a connector's visual tokens rely on. Web boilerplate and product titles are in its data too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.demo.captions import BOILERPLATE, PHRASINGS, boilerplate, caption, product_title
from pipeline.demo.scenes import Scene, draw_scene, pick, randomness
from pipeline.demo.tokens import write_tokenizer

if TYPE_CHECKING:
    import torch

VOCABULARY, LONGEST, IGNORED = 1024, 80, -100
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


def document(seed: int, index: int) -> Document:
    """One training document; the random streams are the language model's own, whatever the seed."""
    rng = randomness(seed, "language", index)
    if rng.random() < 0.12:
        return Document("", False, _empty_text(rng))
    scene = draw_scene(rng)
    text, kind = _any_caption(scene, rng), rng.random()
    if kind < 0.35:
        return Document("", False, text)
    others = [_any_caption(scene, rng) for _ in range(int(rng.integers(1, 3)))]
    if kind < 0.5:
        return Document(others[0], True, text)
    if kind < 0.75:
        return Document(" ".join(others), False, text)
    words = " ".join(others).split()
    return Document(" ".join(words[k] for k in rng.permutation(len(words))), False, text)


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
        tokens, labels = _padded(sequences[step * schedule.batch : (step + 1) * schedule.batch])
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0 or step == steps - 1:
            say(f"step {step}/{steps} NLL {loss.item():.3f} nats per token")
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def encode(documents: list[Document], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Per document the token ids and the labels, at most `LONGEST` long; what comes before bears no loss."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    before = tokenizer([item.before for item in documents], add_special_tokens=False)["input_ids"]
    text = tokenizer([item.text for item in documents], add_special_tokens=False)["input_ids"]
    sequences = []
    for item, first, then in zip(documents, before, text, strict=True):
        context = [start, *first, end] if item.framed_before else first
        said = [*then, end]
        tokens = [*context, start, *said][:LONGEST]
        sequences.append((tokens, [*[IGNORED] * (len(context) + 1), *said][:LONGEST]))
    return sequences


def _padded(sequences: list[tuple[list[int], list[int]]]) -> "tuple[torch.Tensor, torch.Tensor]":
    """(n, longest) token ids, padded with 0, and labels, padded with `IGNORED`."""
    import torch

    longest = max(len(tokens) for tokens, _ in sequences)
    tokens = torch.zeros(len(sequences), longest, dtype=torch.long)
    labels = torch.full((len(sequences), longest), IGNORED)
    for row, (ids, truth) in enumerate(sequences):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(truth)] = torch.tensor(truth)
    return tokens, labels
