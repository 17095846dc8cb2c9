"""What stands around image and caption: nothing but the begin token, or what a chat model was trained to see.

Several templates may be named: each time a training sample is drawn, one of them is drawn for it. Evaluation and
generation use the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.errors import CuveeError
from stages.noise import uniform_noise

IMAGE = "<image>"
"""Stands for the image while a chat is put into words."""


@dataclass(frozen=True)
class Template:
    """Text tokens around an image."""

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    """Between image and caption."""


class Plain(BaseModel):
    """`[image][begin, if the model has such a token][caption]`, as in LLaVA-1.5's first stage (arXiv:2310.03744)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plain"] = "plain"

    def template(self, tokenizer: Any, begin: int | None) -> Template:
        """Its tokens; `begin` is the model's begin token."""
        return Template(between=() if begin is None else (begin,))


class Chat(BaseModel):
    """The tokenizer's own chat template: a user shows the image and asks, the caption is the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["chat"] = "chat"
    instruction: str = Field("Describe the image.", min_length=1)
    """What is asked; it stands behind the image."""

    def template(self, tokenizer: Any, begin: int | None) -> Template:
        """Its tokens; `begin` is not used: a chat template begins as the model's chats do.

        Raises:
            CuveeError: the tokenizer has no chat template, or its template leaves out what the user says.
        """
        if getattr(tokenizer, "chat_template", None) is None:
            raise CuveeError("the language model's tokenizer has no chat template; use `templates: [plain]`")
        asked = [{"role": "user", "content": f"{IMAGE}\n{self.instruction}"}]
        text = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        if text.count(IMAGE) != 1:
            raise CuveeError(
                f"the tokenizer's chat template makes {text!r} of a question about one image; use `templates: [plain]`"
            )
        before, between = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(IMAGE))
        return Template(tuple(before), tuple(between))


def _named(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else given


Wording = Annotated[Annotated[Plain | Chat, Field(discriminator="kind")], BeforeValidator(_named)]
"""A template by its name, or with its settings."""


def drawn_templates(templates: Sequence[Template], keys: Sequence[str], turn: str) -> list[Template]:
    """One template per sample, decided by `turn` (a run's seed and step) and the sample's key alone."""
    if len(templates) == 1:
        return [templates[0]] * len(keys)
    noise = uniform_noise(keys, 0, f"template {turn}")
    return [templates[int(number)] for number in np.minimum(noise * len(templates), len(templates) - 1)]
