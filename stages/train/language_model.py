"""A frozen causal language model that continues visual tokens with a caption."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.attention_masks import attention_mask
from stages.train.label_head import label_head
from stages.train.layout import NONE, Layout, Said

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown

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

    def said(self, ids: Sequence[int], whole: bool, image: int | None) -> Said:
        """A caption behind its image: `[image][begin, if there is one][caption]`, and its end where it is whole."""
        begin = () if self.bos is None else (self.bos,)
        return Said([*ids, self.eos] if whole else ids, image, between=begin)

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

    def label_logits(self, layout: Layout, shown: "Shown", bridge: "Bridge") -> "torch.Tensor":
        """(L, vocabulary) float32 logits of a layout's labels, in their order.

        Args:
            layout: where everything stands; its images are those of `shown`.
            shown: the images' tokens.
            bridge: what acts inside the model.
        """
        import torch

        seen = torch.from_numpy(layout.visual != NONE).to(self.device)
        with bridge.inside(self.model, seen):
            hidden = self._hidden(layout, self._placed(layout, shown, seen))
            chosen = hidden.flatten(0, 1)[torch.from_numpy(layout.places).to(self.device)]
            logits: torch.Tensor = self._head(inputs_embeds=chosen[None]).logits
        return logits[0].float()

    def _placed(self, layout: Layout, shown: "Shown", seen: "torch.Tensor") -> "torch.Tensor":
        """(R, T, width) input embeddings of text, with the images' tokens at their places."""
        import torch

        embedded = self._embed(torch.from_numpy(layout.tokens).to(self.device))
        which = torch.from_numpy(layout.visual[layout.visual != NONE]).to(self.device)
        tokens = shown.tokens.flatten(0, 1)[which].to(embedded.dtype)
        return embedded.index_put((*seen.nonzero(as_tuple=True),), tokens)

    def _hidden(self, layout: Layout, embedded: "torch.Tensor") -> "torch.Tensor":
        """(R, T, width) last hidden states."""
        import torch

        mask = attention_mask(layout, self.device)
        positions = None if mask is None else torch.from_numpy(layout.positions).to(self.device)
        out = self.model.base_model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    @cached_property
    def _head(self) -> Any:
        return label_head(self.model)

    def generate(self, shown: "Shown", most: int, bridge: "Bridge") -> list[list[int]]:
        """Greedy captions of the images shown: at most `most` ids per row, the end token left out."""
        import torch

        rows = len(shown.tokens)
        found: list[list[int]] = [[] for _ in range(rows)]
        running = [True] * rows
        embedded, past = torch.cat([shown.tokens, self._begin(rows)], dim=1), None
        seen = torch.ones(rows, embedded.shape[1], dtype=torch.bool, device=self.device)
        seen[:, shown.tokens.shape[1] :] = False
        for _ in range(most):
            with bridge.inside(self.model, seen if past is None else None):
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
    """(...,) Brier score sum_v (p_v - [v = label])^2 of labels (...,) under logits (..., vocabulary), in [0, 2].

    Computed as sum_v p_v^2 - 2 p_label + 1, so that no second array of the logits' size is needed. 0 where a label is
    ignored.
    """
    spoken = logits.softmax(dim=-1)
    told = spoken.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    scores: torch.Tensor = spoken.square().sum(dim=-1) - 2 * told + 1
    return scores.masked_fill(labels < 0, 0.0)


def load_language_model(folder: Path, device: str = "cpu", dtype: "torch.dtype | None" = None) -> LanguageModel:
    """A causal language model from a folder, frozen, fp32 or `dtype`, in eval mode; nothing is fetched or run of it.

    Raises:
        CuveeError: transformers cannot load it, or it has no end token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype or torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CuveeError(f"language model {folder} does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise CuveeError(f"language model {folder} has no end-of-text token, so no caption would end; set `eos_token`")
    frozen: torch.nn.Module = model
    frozen.train(False).requires_grad_(False).to(device)
    return LanguageModel(model, tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id, device)
