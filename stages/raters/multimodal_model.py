"""Any image-and-text model that transformers loads, asked for next-token probabilities; knows nothing of rubrics.

A pass holds one sample, so that no neighbour can change a bit of another's score. What its questions share (image and
caption) is encoded once; their ends, and the beginnings of answers, continue its KV cache (see `tree_pass`).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import RecipeError
from stages.raters.answers import Path as TokenPath
from stages.raters.tree_pass import After, Branch, in_turn, packed

if TYPE_CHECKING:
    import torch
    from PIL import Image


class UnfitError(Exception):
    """A sample that the model cannot be asked about; `reason` is the code for a reason column.

    `unfit_image`: the model's own preprocessing refuses the picture. `prompt_too_long`: more tokens than it has places.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """`reason` is one of those above."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Way(NamedTuple):
    """How several prompts about one sample are asked; all ways give the same, as far as a model takes them."""

    shared: bool = True
    """What they have in common (image and caption) is encoded once. Not where the image sees what comes after it."""
    packed: bool = True
    """They stand in one row, with a mask; else one after the other. Not where attention is not by such a mask."""


class Written(NamedTuple):
    """A generated answer."""

    text: str
    cut: bool
    """The model would have gone on."""


ALL_AT_ONCE, SEPARATE = Way(shared=True, packed=True), Way(shared=False, packed=False)


@dataclass(frozen=True)
class Prompts:
    """What is asked about one sample: rows that begin alike."""

    rows: tuple[tuple[int, ...], ...]
    """Token ids of each prompt, image tokens included."""
    shared: int
    """How many tokens at their beginning are the same."""
    inputs: dict[str, Any]
    """What the processor made of the first: token ids, mask, pixels, ..."""


@dataclass(frozen=True)
class MultimodalModel:
    """A loaded model and its processor."""

    model: Any
    processor: Any
    device: str
    threads: int

    @property
    def tokenizer(self) -> Any:
        """The processor's."""
        return self.processor.tokenizer

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """Strings that the tokenizer takes for an image, a role, an end, ..."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special}))

    @cached_property
    def digits(self) -> tuple[int, ...]:
        """Tokens that begin with a digit."""
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return tuple(number for number, name in enumerate(names) if name and name[0] in "0123456789")

    def tokenize(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def prompts(self, picture: "Image.Image | None", texts: Sequence[str]) -> Prompts:
        """One turn of a user each, about the same picture, up to where the answer begins.

        The processor sees the picture once: prompts differ at their ends only, which hold no image.

        Raises:
            UnfitError: the processor refuses the picture.
        """
        turns = [self._turn(text, picture is not None) for text in texts]
        inputs = self._processed(turns[0], picture)
        first = tuple(inputs["input_ids"][0].tolist())
        plain = [self._ids(turn) for turn in turns]
        shared = min((_common(plain[0], row) for row in plain[1:]), default=len(plain[0]))
        end = len(first) - (len(plain[0]) - shared)
        if first[end:] != plain[0][shared:]:  # a processor that also changes what follows the image
            whole = [tuple(self._processed(turn, picture)["input_ids"][0].tolist()) for turn in turns]
            end = min((_common(whole[0], row) for row in whole[1:]), default=len(whole[0]))
            return Prompts(tuple(whole), min(end, *map(_but_one, whole)), inputs)
        rows = tuple(first[:end] + row[shared:] for row in plain)
        return Prompts(rows, min(end, *map(_but_one, rows)), inputs)

    def answer_begins_alone(self) -> bool:
        """Whether an answer stands behind a space, a line end or a special token; else it begins with a space."""
        turn = self._turn("", False)
        return turn[-1:].isspace() or turn.endswith(self.special_tokens)

    def answers_to(self, text: str) -> Callable[[str], list[int]]:
        """From an answer to `text` to the token ids that the model would say.

        These are the ids of prompt and answer together behind those of the prompt: an answer by itself may begin with
        the space that some tokenizers put before all text. Where the tokenizer would join the prompt's last token with
        the answer's first (" " and "art" are "▁art"), the model cannot say the joint token any more. Then the answer
        goes on from what is said already, as it does behind a line end, or by itself where that is joined as well.
        """
        before = (self._turn(text, True), "\n")

        def tokens(answer: str) -> list[int]:
            found = (_behind(self.tokenize(start), self.tokenize(start + answer)) for start in before)
            return next((ids for ids in found if ids is not None), None) or self.tokenize(answer)

        return tokens

    def refuse_longer(self, prompts: Prompts, more: int) -> None:
        """Refuse prompts that do not fit the model with `more` tokens behind them.

        Raises:
            UnfitError: `prompt_too_long`.
        """
        config = self.model.config.get_text_config()
        longest, needed = getattr(config, "max_position_embeddings", None), max(map(len, prompts.rows)) + more
        if longest is not None and needed > longest:
            raise UnfitError("prompt_too_long", f"{needed} tokens for {longest} places")

    def after(self, prompts: Prompts, paths: Sequence[Sequence[TokenPath]], way: Way) -> After:
        """Per prompt, log-probabilities of the next token after it and after each of its paths.

        Args:
            prompts: from `prompts`.
            paths: per prompt, what may be said after it; of each path every beginning, and that before it.
            way: how.
        """
        with self._pinned():
            if way.shared:
                tails = [row[prompts.shared :] for row in prompts.rows]
                return self._after(prompts, prompts.rows[0][: prompts.shared], tails, paths, way)
            return [
                self._after(prompts, row[:-1], [row[-1:]], [mine], way)[0]
                for row, mine in zip(prompts.rows, paths, strict=True)
            ]

    def generate(self, prompts: Prompts, most: int) -> list[Written]:
        """Greedy answers of at most `most` tokens, special tokens left out."""
        ends = self.model.generation_config.eos_token_id
        with self._pinned():
            found = []
            for row in prompts.rows:
                inputs = self._cut(prompts, row, len(row))
                ids = self.model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
                own = ids[0][len(row) :].tolist()
                cut = len(own) == most and own[-1] not in (ends if isinstance(ends, list) else [ends])
                found.append(Written(str(self.tokenizer.decode(own, skip_special_tokens=True)), cut))
        return found

    def label_logits(self, prompts: Prompts, answer: Sequence[int]) -> "torch.Tensor":
        """(t, vocabulary) float32 logits of each token of an answer to the first prompt, given those before it."""
        row = (*prompts.rows[0], *answer)
        with self._pinned():
            inputs = self._cut(prompts, row, len(row))
            logits: torch.Tensor = self.model(**inputs, use_cache=False, **self._keep(len(answer) + 1)).logits
        return logits[0, -len(answer) - 1 : -1].float()

    @contextmanager
    def _pinned(self) -> Iterator[None]:
        import torch

        torch.set_num_threads(self.threads)  # each time: other code in this process may have changed it
        with torch.inference_mode():
            yield

    def _turn(self, text: str, with_image: bool) -> str:
        if getattr(self.processor, "chat_template", None) is None:
            return f"{self.processor.image_token if with_image else ''}\n{text}\nAnswer:"
        content = [{"type": "image"}] * with_image + [{"type": "text", "text": text}]
        # Without this a reasoning model would open its thoughts here, and no answer could follow.
        quiet = {"enable_thinking": False} if "enable_thinking" in str(self.processor.chat_template) else {}
        turn: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, **quiet
        )
        return turn

    def _begins(self, turn: str) -> bool:
        """Whether special tokens are still to be added: a chat template may have its own."""
        begin = self.tokenizer.bos_token
        return not (begin and turn.startswith(begin))

    def _ids(self, turn: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(turn, add_special_tokens=self._begins(turn))["input_ids"])

    def _processed(self, turn: str, picture: "Image.Image | None") -> dict[str, Any]:
        images = {} if picture is None else {"images": [picture]}
        try:
            made = self.processor(text=[turn], **images, return_tensors="pt", add_special_tokens=self._begins(turn))
        except (ValueError, ZeroDivisionError, IndexError) as error:
            raise UnfitError("unfit_image", str(error)) from error
        return dict(made)

    def _cut(self, prompts: Prompts, row: Sequence[int], length: int) -> dict[str, Any]:
        """The processor's inputs with the first `length` ids of `row`; what has a value per token is as long."""
        import torch

        size = prompts.inputs["input_ids"].shape[1]
        cut = {}
        for name, value in prompts.inputs.items():
            if torch.is_tensor(value) and value.shape == (1, size):
                fill = 1 if name == "attention_mask" else 0
                value = torch.nn.functional.pad(value[:, :length], (0, max(0, length - size)), value=fill)
            if torch.is_tensor(value):
                floats = value.is_floating_point()
                value = value.to(self.device, self.model.dtype if floats else value.dtype)
            cut[name] = value
        cut["input_ids"] = torch.tensor([row[:length]], device=self.device)
        return cut

    def _after(
        self,
        prompts: Prompts,
        beginning: TokenPath,
        tails: Sequence[TokenPath],
        paths: Sequence[Sequence[TokenPath]],
        way: Way,
    ) -> After:
        length = len(beginning)
        first = self.model(**self._cut(prompts, beginning, length), use_cache=True, **self._keep(1))
        branches = [Branch(tail, tuple(mine)) for tail, mine in zip(tails, paths, strict=True)]
        cache = first.past_key_values
        if way.packed:
            return packed(self.model, cache, length, self._offset(), branches, self._keep)
        return [
            in_turn(self.model, copy.deepcopy(cache) if len(branches) > 1 else cache, branch) for branch in branches
        ]

    @cached_property
    def may_pack(self) -> bool:
        """False for layers that see no further than a window: a mask of our own would lift it."""
        config = self.model.config.get_text_config()
        layers = getattr(config, "layer_types", None)
        if layers is None:
            return getattr(config, "sliding_window", None) is None
        return all(kind == "full_attention" for kind in layers)

    def _keep(self, what: Any) -> dict[str, Any]:
        """Only these positions' logits, where the model can."""
        return {"logits_to_keep": what} if "logits_to_keep" in signature(self.model.forward).parameters else {}

    def _offset(self) -> int:
        """How far positions run behind tokens after an image, in models that give it fewer (multimodal rotary ones)."""
        inner = getattr(self.model, "model", self.model)
        deltas = getattr(inner, "rope_deltas", None)
        return 0 if deltas is None else int(deltas.flatten()[0])


def load_model(folder: Path, *, device: str = "cpu", dtype: str = "fp32", threads: int = 1) -> MultimodalModel:
    """A model and its processor from a folder, frozen, in eval mode; nothing is fetched, no code of it is run.

    Raises:
        RecipeError: transformers cannot load it, or there is no such device.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("this machine has no CUDA device; set `device: cpu` or run where one is")
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    numbers = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    own = {"local_files_only": True, "trust_remote_code": False}
    try:
        model: torch.nn.Module = AutoModelForImageTextToText.from_pretrained(folder, dtype=numbers, **own)
        processor: Any = AutoProcessor.from_pretrained(folder, **own)  # type: ignore[no-untyped-call]
        processor.tokenizer.convert_ids_to_tokens([0])
    except (OSError, ValueError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise RecipeError(f"model {str(folder)!r} does not load as an image-and-text model: {error!s:.800}") from error
    return MultimodalModel(model.train(False).requires_grad_(False).to(device), processor, device, threads)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _behind(start: list[int], whole: list[int]) -> list[int] | None:
    """What follows a beginning; None for what does not begin so."""
    return whole[len(start) :] if whole[: len(start)] == start else None


def _but_one(row: Sequence[int]) -> int:
    return len(row) - 1
