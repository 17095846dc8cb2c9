"""What a language model says about captions alone: their loss, in nats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.captioners.likelihood import plain_tokens
from stages.train.language_model import LanguageModel, load_language_model
from stages.train.layout import lay_out
from stages.train.model_files import folder_identity, local_folder

ROWS = 16
"""Captions of one pass: those that follow each other among a batch's distinct ones."""

PROBES = (
    "a red circle above the green square",
    "Sunset over 3 mountains, 2019 (c)",
    "caf\u00e9 \u6771\u4eac \U0001f600",
)
"""Texts that tell tokenizers apart."""


@dataclass(frozen=True)
class TextLosses:
    """A loaded causal language model."""

    language: LanguageModel
    max_tokens: int
    threads: int

    def tokens(self, caption: str) -> list[int]:
        """The leading tokens of a caption, in which none is special."""
        return plain_tokens(self.language.tokenizer, caption)[: self.max_tokens]

    def cuts(self, caption: str) -> bool:
        """Whether a caption has more tokens than are read."""
        return len(plain_tokens(self.language.tokenizer, caption)) > self.max_tokens

    def losses(self, captions: Sequence[str]) -> npt.NDArray[np.float64]:
        """(n,) nats of each caption's tokens together, its end not counted; 0 where it has none."""
        import torch

        torch.set_num_threads(self.threads)
        found = np.zeros(len(captions))
        rows = [(number, ids) for number, ids in enumerate(map(self.tokens, captions)) if ids]
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS):
                places, tokens = zip(*rows[start : start + ROWS], strict=True)
                layout = lay_out([self.language.said(ids, False, None) for ids in tokens], 0)
                logits = self.language.label_logits(layout, None, None).cpu()
                nats = torch.nn.functional.cross_entropy(logits, torch.from_numpy(layout.labels), reduction="none")
                np.add.at(found, np.array(places)[layout.samples], nats.double().numpy())
        return found


def model_identity(name: str) -> str:
    """The content of a model's folder, or of the one that the hub's local cache holds for a name.

    Raises:
        RecipeError: there is neither.
    """
    return folder_identity(local_folder(name))


def same_tokens(names: Sequence[str]) -> bool:
    """Whether the tokenizers of these models cut a few probes alike.

    Raises:
        RecipeError: one does not load.
    """
    from transformers import AutoTokenizer

    found = []
    for name in names:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                local_folder(name), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError(f"the tokenizer of {name!r} does not load: {error!s:.400}") from error
        found.append([plain_tokens(tokenizer, text) for text in PROBES])
    return all(tokens == found[0] for tokens in found)


def load_losses(name: str, *, max_tokens: int, device: str, threads: int) -> TextLosses:
    """A causal language model from a folder, or a name in the hub's local cache.

    Raises:
        CuveeError: transformers cannot load it.
        RecipeError: it is not there, or has fewer places than `max_tokens`.
    """
    import torch

    folder: Path = local_folder(name)
    torch.set_num_threads(threads)
    language = load_language_model(folder, device)
    longest = getattr(language.model.config, "max_position_embeddings", None)
    if longest is not None and max_tokens + 1 > longest:
        raise RecipeError(f"language model {str(folder)!r} has {longest} places; lower `max_tokens` ({max_tokens})")
    return TextLosses(language, max_tokens, threads)
