"""A frozen causal language model that continues visual tokens with a caption."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a position without loss."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one CPU thread: the number of threads changes the bits of a float sum."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class LanguageModel:
    """The model, its tokenizer and its special tokens."""

    model: Any
    tokenizer: Any
    bos: int | None
    eos: int
    device: str

    @property
    def width(self) -> int:
        """Width of its input embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def tokenize(self, captions: list[str]) -> list[list[int]]:
        """Token ids per caption, without special tokens."""
        found: list[list[int]] = self.tokenizer(captions, add_special_tokens=False)["input_ids"]
        return found

    def labels(self, captions: Sequence[list[int]], whole: Sequence[bool]) -> "torch.Tensor":
        """(n, t) what is to be predicted: caption, then the end token where the caption was not cut, then `IGNORED`."""
        import torch

        rows = [
            torch.tensor([*ids, self.eos] if all_of_it else ids) for ids, all_of_it in zip(captions, whole, strict=True)
        ]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
        return padded.to(self.device)

    def token_losses(self, visual: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """(n, t) cross entropy in nats of each label after the visual tokens and the labels before it; 0 where ignored.

        Args:
            visual: (n, v, width) input embeddings of the visual tokens.
            labels: (n, t) from `labels`.
        """
        return cross_entropies(self.logits(visual, labels), labels)

    def logits(self, visual: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """(n, t, vocabulary) float32 logits of each label, given the visual tokens and the labels before it.

        The sequence is `[visual][begin, if the model has one][caption]`, padded at its end: causal attention keeps the
        padding out of everything before it, so that no mask is needed. Without visual tokens a model that has no begin
        token starts from its end token, which is what stood before a text in its training.
        """
        import torch

        text = labels[:, :-1].clamp(min=0)
        begin = self._begin(len(labels))
        if not visual.shape[1] and not begin.shape[1]:
            begin = self._embed(torch.full_like(labels[:, :1], self.eos))
        embedded = torch.cat([visual, begin, self._embed(text)], dim=1)
        count = labels.shape[1]
        logits: torch.Tensor = self.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=count).logits
        return logits[:, -count:].float()

    def generate(self, visual: "torch.Tensor", most: int) -> list[list[int]]:
        """Greedy continuation of visual tokens (n, v, width): at most `most` ids per row, the end token left out."""
        import torch

        found: list[list[int]] = [[] for _ in range(len(visual))]
        running = [True] * len(visual)
        embedded, past = torch.cat([visual, self._begin(len(visual))], dim=1), None
        for _ in range(most):
            out = self.model(inputs_embeds=embedded, past_key_values=past, use_cache=True, logits_to_keep=1)
            best, past = out.logits[:, -1].argmax(dim=-1), out.past_key_values
            for row, token in enumerate(best.tolist()):
                running[row] = running[row] and token != self.eos
                if running[row]:
                    found[row].append(token)
            if not any(running):
                break
            embedded = self._embed(best[:, None])
        return found

    def _embed(self, ids: "torch.Tensor") -> "torch.Tensor":
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def _begin(self, rows: int) -> "torch.Tensor":
        import torch

        ids = [] if self.bos is None else [self.bos]
        return self._embed(torch.tensor([ids] * rows, dtype=torch.long, device=self.device).view(rows, len(ids)))


def cross_entropies(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """(n, t) cross entropy in nats of labels (n, t) under logits (n, t, vocabulary); 0 where a label is ignored."""
    import torch

    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view_as(labels)


def brier_scores(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """(n, t) Brier score sum_v (p_v - [v = label])^2 of labels (n, t), in [0, 2]; 0 where a label is ignored.

    Computed as sum_v p_v^2 - 2 p_label + 1, so that no second array of the logits' size is needed.
    """
    spoken = logits.softmax(dim=-1)
    told = spoken.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    scores: torch.Tensor = spoken.square().sum(dim=-1) - 2 * told + 1
    return scores.masked_fill(labels < 0, 0.0)


def load_language_model(folder: Path, device: str = "cpu") -> LanguageModel:
    """A causal language model from a folder, frozen, in fp32 and eval mode; nothing is fetched, no code of it is run.

    Raises:
        CuveeError: transformers cannot load it, or it has no end token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CuveeError(f"language model {folder} does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise CuveeError(f"language model {folder} has no end-of-text token, so no caption would end; set `eos_token`")
    frozen: torch.nn.Module = model
    frozen.train(False).requires_grad_(False).to(device)
    return LanguageModel(model, tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id, device)
