"""What a captioner says about each token of a caption, and the scores made of it; the interface of captioners.

With x_t the caption's tokens, v the image, o_t the logit and p the probability of x_t given x_<t:
visual dependence = 1/T sum_t log p(x_t | v) - log p(x_t), the pointwise mutual information of caption and image per
token; CAL (arXiv:2405.17871) takes the difference of logits instead, clamped to [1, 5] and averaged over three
neighbours, as the weight of a token in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ContractError

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]
LOWEST, HIGHEST, NEIGHBOURS = 1.0, 5.0, 3
"""CAL's clamp and pooling window."""


@dataclass(frozen=True)
class TokenScores:
    """Per caption token, with the image and without; four arrays (t,), t >= 1."""

    log_p_image: Doubles
    log_p_text: Doubles
    logit_image: Doubles
    logit_text: Doubles

    @property
    def finite(self) -> bool:
        """False where the model went beyond its number format."""
        return all(
            bool(np.isfinite(numbers).all())
            for numbers in (self.log_p_image, self.log_p_text, self.logit_image, self.logit_text)
        )

    @property
    def pmi(self) -> float:
        """Nats that the image tells about the whole caption."""
        return float((self.log_p_image - self.log_p_text).sum())

    @property
    def weight(self) -> float:
        """Mean of CAL's token weights, in [1, 5]; at a caption's ends the window holds what there is."""
        clamped = np.clip(self.logit_image - self.logit_text, LOWEST, HIGHEST)
        ones = np.ones(NEIGHBOURS)
        counts = np.convolve(np.ones(len(clamped)), ones, "full")[1:-1]
        return float((np.convolve(clamped, ones, "full")[1:-1] / counts).mean())


class Captioner(Protocol):
    """A captioning model that is ready."""

    def scores(self, images: Sequence[bytes], captions: Sequence[str]) -> list[TokenScores | str]:
        """Per pair the scores of its tokens, or a reason code."""


class CaptionerSettings(BaseModel):
    """Which model: the `captioner:` of a stage, told apart by its `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    max_tokens: int = Field(default=128, gt=0)
    """Caption tokens read; longer captions are cut."""
    threads: int = Field(default=1, gt=0)
    """Torch threads of one CPU worker; another number gives other last bits and another address."""

    def open(self) -> Captioner:
        """Load the model; called once per worker."""
        raise ContractError(f"{type(self).__name__} does not implement open()")

    def identity(self) -> dict[str, object]:
        """What scores depend on, with models by content."""
        raise ContractError(f"{type(self).__name__} does not implement identity()")

    def check(self) -> None:
        """Refuse what cannot work before anything starts."""


def plain_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text in which nothing is a special token; see `without_special`."""
    found: list[int] = tokenizer(without_special(tokenizer, text), add_special_tokens=False)["input_ids"]
    return found


def without_special(tokenizer: Any, text: str) -> str:
    """A text in which nothing is a special token: those that stand in it are taken apart by a space."""
    special = sorted(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    for token in special:
        while len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def token_scores(with_image: "torch.Tensor", without: "torch.Tensor", tokens: Sequence[int]) -> TokenScores:
    """Both models' numbers about a caption's tokens.

    Args:
        with_image: (t, vocabulary) logits given the image.
        without: (t, vocabulary) logits without it.
        tokens: (t,) the caption's token ids.
    """
    log_p_image, logit_image = _picked(with_image, tokens)
    log_p_text, logit_text = _picked(without, tokens)
    return TokenScores(log_p_image, log_p_text, logit_image, logit_text)


def _picked(logits: "torch.Tensor", tokens: Sequence[int]) -> tuple[Doubles, Doubles]:
    import torch

    chosen = torch.tensor(list(tokens), device=logits.device)[:, None]
    log_p = logits.double().log_softmax(dim=-1).gather(1, chosen)[:, 0].cpu().numpy()
    return log_p, logits.gather(1, chosen)[:, 0].double().cpu().numpy()
