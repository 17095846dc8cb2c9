"""A rater in this process: any folder that transformers loads as an image-and-text model.

The score of a scale is its expectation under the probabilities of all its integers (see `answers`), after two passes:
one over image and caption, one over the ends of all questions and, where numbers have several tokens, their beginnings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from schemas.errors import RecipeError
from stages.device import Device
from stages.file_identity import Located
from stages.pixels import PixelError, decode, flat_rgb
from stages.raters.answers import AnswerTrie, Logs, expectation
from stages.raters.backend import OVERFLOW, UNPARSEABLE, Answer, BackendSettings, RaterSample
from stages.raters.multimodal_model import (
    ALL_AT_ONCE,
    SEPARATE,
    MultimodalModel,
    Prompts,
    UnfitError,
    Way,
    Written,
    load_model,
)
from stages.raters.prompt import VERSION, prompt
from stages.raters.rubric import Question
from stages.raters.tree_pass import After
from stages.train.model_files import folder_identity, local_folder

if TYPE_CHECKING:
    from PIL import Image

TOKENS = 2
"""Raise it when answers are cut into tokens in another way: it is part of the address of expectations."""
AGREEMENT = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2}
"""How far a next token's distribution may be from that of separate prompts, by number format."""
FOREIGN = (ValueError, TypeError, RuntimeError, AttributeError, IndexError, KeyError)
"""What models raise that cannot be asked this way."""


class TransformersBackend(BackendSettings):
    """A model folder, run by transformers; no code from the folder is ever run."""

    kind: Literal["transformers"] = "transformers"
    model: Located
    """Folder of an image-and-text model with its processor, or a hub name in the local cache."""
    answer: Literal["expectation", "generate"] = "expectation"
    """`generate` writes an answer, greedily, and reads the number in it: the published path, slower and coarser."""
    least_mass: float = Field(0.5, ge=0, le=1)
    """Probability that all admissible answers must have together; below it the model would rather say something else,
    and the answer counts as unparseable. For `expectation`."""
    new_tokens: int = Field(8, gt=0)
    """Most tokens that `generate` writes; two, as in the original, cut a 100 that is spelled digit by digit."""
    device: Device = Field(default="auto", validate_default=True)
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    threads: int = Field(default=1, gt=0)
    """Torch threads of one CPU worker; another number gives other last bits and another address."""

    @property
    def local(self) -> bool:
        """Where its model is to run on one."""
        return self.device == "cuda"

    def check(self) -> None:
        """Refuse a folder that holds no image-and-text model.

        Raises:
            RecipeError: with what was found and what was expected.
        """
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

        folder = local_folder(self.model)
        try:
            found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError(f"model {self.model!r} has no configuration that loads: {error!s:.400}") from error
        if found not in KNOWN:
            raise RecipeError(f"model {self.model!r} is a {found!r}, not one that takes an image and a text")
        folder_identity(folder)

    def identity(self) -> dict[str, object]:
        """Settings, the words around a sample, and the model by its files' content."""
        settings = self.model_dump(mode="json", exclude={"model"})
        tokens = {"tokens": TOKENS} if self.answer == "expectation" else {}
        return {**settings, **tokens, "weights": folder_identity(local_folder(self.model)), "prompt": VERSION}

    def open(self) -> "TransformersRater":
        """Load the model, and find out whether prompts may share their beginning."""
        model = load_model(local_folder(self.model), device=self.device, dtype=self.dtype, threads=self.threads)
        rater = TransformersRater(model, self)
        if self.answer == "expectation":
            rater.way = rater.best_way()
        return rater


@dataclass
class TransformersRater:
    """A loaded model that answers questions."""

    model: MultimodalModel
    settings: TransformersBackend
    way: Way = ALL_AT_ONCE
    tries: dict[Question, AnswerTrie] = field(default_factory=dict)

    def rate(self, samples: Sequence[RaterSample], questions: Sequence[Question]) -> list[list[Answer]]:
        """Per sample, one answer per question; samples do not touch each other."""
        return [self._rated(sample, questions) for sample in samples]

    def best_way(self) -> Way:
        """The fastest way that gives what separate prompts give, tried on a grey picture.

        Raises:
            RecipeError: the model does not continue a prompt token by token in any way, or overflows.
        """
        from PIL import Image

        asked = [Question(name="a", text="How good is it?"), Question(name="b", text="Is it?", labels=("yes", "no"))]
        prompts = self._prompts(Image.new("RGB", (64, 48), (128, 128, 128)), "a grey picture", asked)
        try:
            plain = self._after(prompts, asked, SEPARATE)
        except FOREIGN as error:
            raise RecipeError(
                f"model {self.settings.model!r} does not continue a prompt as a decoder does ({error!s:.200}); "
                "choose another model, or `answer: generate`"
            ) from error
        if any(np.isnan(log).any() for logs in plain for log in logs.values()):
            raise RecipeError(
                f"model {self.settings.model!r} gives no numbers in {self.settings.dtype}, about a grey picture; "
                "use bf16 or fp32"
            )
        ways = [ALL_AT_ONCE, Way(True, False), Way(False, True)]
        good = (way for way in ways if self._agrees(prompts, asked, way, plain))
        return next(good, SEPARATE)

    def _agrees(self, prompts: Prompts, asked: Sequence[Question], way: Way, plain: After) -> bool:
        """Whether all next-token distributions are those of separate prompts, in total variation."""
        if way.packed and not self.model.may_pack:
            return False
        try:
            found = self._after(prompts, asked, way)
        except FOREIGN:
            return False
        pairs = [(one[path], other[path]) for one, other in zip(found, plain, strict=True) for path in one]
        apart = [float(np.abs(np.exp(one) - np.exp(other)).sum()) / 2 for one, other in pairs]
        return all(distance <= AGREEMENT[self.settings.dtype] for distance in apart)

    def _after(self, prompts: Prompts, questions: Sequence[Question], way: Way) -> After:
        return self.model.after(prompts, [self._trie(question).asked() for question in questions], way)

    def _chances(self, prompts: Prompts, questions: Sequence[Question], way: Way) -> list[Logs]:
        """Per question, the probabilities of all its answers."""
        after = self._after(prompts, questions, way)
        return [self._trie(question).probabilities(logs) for question, logs in zip(questions, after, strict=True)]

    def _rated(self, sample: RaterSample, questions: Sequence[Question]) -> list[Answer]:
        try:
            picture = None if sample.image is None else flat_rgb(decode(sample.image))
            prompts = self._prompts(picture, sample.caption, questions)
            self.model.refuse_longer(prompts, self.settings.new_tokens)
        except PixelError as error:
            return [Answer(None, error.reason)] * len(questions)
        except UnfitError as error:
            return [Answer(None, error.reason)] * len(questions)
        if self.settings.answer == "generate":
            return self._generated(prompts, questions)
        chances = self._chances(prompts, questions, self.way)
        return [self._answer(question, mine) for question, mine in zip(questions, chances, strict=True)]

    def _answer(self, question: Question, chances: Logs) -> Answer:
        if np.isnan(chances).any():
            return Answer(None, OVERFLOW)
        if float(chances.sum()) < max(self.settings.least_mass, 1e-12):
            return Answer(None, UNPARSEABLE)
        if question.labels:
            return Answer(question.labels[int(chances.argmax())])
        return Answer(expectation(range(question.low, question.high + 1), chances)[0])

    def _generated(self, prompts: Prompts, questions: Sequence[Question]) -> list[Answer]:
        texts = self.model.generate(prompts, self.settings.new_tokens)
        return [parsed(text, question) for text, question in zip(texts, questions, strict=True)]

    def _prompts(self, picture: "Image.Image | None", caption: str, questions: Sequence[Question]) -> Prompts:
        special = self.model.special_tokens
        return self.model.prompts(picture, [prompt(caption, question, special) for question in questions])

    def _trie(self, question: Question) -> AnswerTrie:
        if question not in self.tries:
            tokenize = self.model.answers_to(prompt("", question))
            self.tries[question] = AnswerTrie.of(question.answers(), tokenize, self.model.digits)
        return self.tries[question]


def parsed(written: Written, question: Question) -> Answer:
    """The answer that a generated text gives, or `unparseable_score`."""
    from stages.raters.parser import parse_label, parse_score

    if question.labels:
        label = parse_label(written.text, question.labels)
        return Answer(label, None if label is not None else UNPARSEABLE)
    score = parse_score(written.text, question.low, question.high, cut=written.cut)
    return Answer(None, UNPARSEABLE) if score is None else Answer(score)
