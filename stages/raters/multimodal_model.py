"""Any image-and-text model that transformers loads, asked for next-token probabilities; knows nothing of rubrics.

A pass holds one sample, so that no neighbour can change a bit of another's score; its questions are the rows. The KV
cache of what they share (image and caption) is computed once and repeated for the rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import RecipeError
from stages.raters.answers import Logs
from stages.raters.answers import Path as TokenPath

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

    def turn_ends_in_space(self) -> bool:
        """Whether an answer begins a line of its own; else it follows a word and begins with a space."""
        return self._turn("", False)[-1:].isspace()

    def refuse_longer(self, prompts: Prompts, more: int) -> None:
        """Refuse prompts that do not fit the model with `more` tokens behind them.

        Raises:
            UnfitError: `prompt_too_long`.
        """
        config = self.model.config.get_text_config()
        longest, needed = getattr(config, "max_position_embeddings", None), max(map(len, prompts.rows)) + more
        if longest is not None and needed > longest:
            raise UnfitError("prompt_too_long", f"{needed} tokens for {longest} places")

    def after(
        self, prompts: Prompts, chains: Sequence[Sequence[TokenPath]], *, once: bool = True
    ) -> list[dict[TokenPath, Logs]]:
        """Per prompt, log-probabilities of the next token after it and after every beginning of its chains.

        Args:
            prompts: from `prompts`.
            chains: per prompt, token paths that may follow it.
            once: False encodes the image and what follows anew for every prompt.
        """
        with self._pinned():
            if once:
                return self._shared(prompts, prompts.shared, chains)
            return [
                self._shared(Prompts((row,), len(row), prompts.inputs), len(row), [chain])[0]
                for row, chain in zip(prompts.rows, chains, strict=True)
            ]

    def generate(self, prompts: Prompts, most: int) -> list[str]:
        """Greedy answers of at most `most` tokens, special tokens left out."""
        with self._pinned():
            found = []
            for row in prompts.rows:
                inputs = self._cut(prompts, row, len(row))
                ids = self.model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
                found.append(str(self.tokenizer.decode(ids[0][len(row) :], skip_special_tokens=True)))
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

    def _shared(
        self, prompts: Prompts, length: int, chains: Sequence[Sequence[TokenPath]]
    ) -> list[dict[TokenPath, Logs]]:
        """One pass over the beginning, one over the rest of all rows, one over all chains."""
        first = self.model(**self._cut(prompts, prompts.rows[0], length), use_cache=True, **self._keep(1))
        run = _Continued(self, first.past_key_values, length, self._offset())
        tails = [row[length:] for row in prompts.rows]
        found: list[dict[TokenPath, Logs]]
        if any(tails):
            places = [len(tail) - 1 for tail in tails]
            logits = run.feed([0] * len(tails), tails, sorted(set(places)))
            found = [{(): _logs(logits[n, sorted(set(places)).index(place)])} for n, place in enumerate(places)]
        else:
            found = [{(): _logs(first.logits[0, -1])}]
        owners = [number for number, mine in enumerate(chains) for _ in mine]
        fed = [chain for mine in chains for chain in mine]
        if fed:
            logits = run.feed(owners, fed, list(range(max(map(len, fed)))))
            for number, (owner, chain) in enumerate(zip(owners, fed, strict=True)):
                found[owner] |= {chain[: depth + 1]: _logs(logits[number, depth]) for depth in range(len(chain))}
        return found

    def _keep(self, what: Any) -> dict[str, Any]:
        """Only these positions' logits, where the model can."""
        return {"logits_to_keep": what} if "logits_to_keep" in signature(self.model.forward).parameters else {}

    def _offset(self) -> int:
        """How far positions run behind tokens after an image, in models that give it fewer (multimodal rotary ones)."""
        inner = getattr(self.model, "model", self.model)
        deltas = getattr(inner, "rope_deltas", None)
        return 0 if deltas is None else int(deltas.flatten()[0])


@dataclass
class _Continued:
    """Rows that go on from one cached beginning; each `feed` multiplies and prolongs them."""

    owner: MultimodalModel
    cache: Any
    width: int
    """Cached positions per row, padding included."""
    offset: int
    mask: "torch.Tensor | None" = None
    """(rows, width) 1 where a token stands."""

    def feed(self, sources: Sequence[int], rows: Sequence[Sequence[int]], places: list[int]) -> "torch.Tensor":
        """(rows, places, vocabulary) logits at `places` of `rows`, each of which continues the cached row it names."""
        import torch

        model, device = self.owner.model, self.owner.device
        index = torch.tensor(list(sources), device=device)
        before = torch.ones(1, self.width, dtype=torch.long, device=device) if self.mask is None else self.mask
        self.cache.batch_select_indices(index)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        widest = int(lengths.max())
        ids = torch.tensor([[*row, *[row[-1]] * (widest - len(row))] for row in rows], device=device)
        steps = torch.arange(widest, device=device)
        own = (steps[None] < lengths[:, None]).long()
        self.mask = torch.cat([before[index], own], dim=1)
        positions = before[index].sum(dim=1, keepdim=True) + self.offset + steps[None]
        self.width += widest
        keep = self.owner._keep(torch.tensor(places, device=device))
        logits: torch.Tensor = model(
            input_ids=ids, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache,
            use_cache=True, **keep,
        ).logits  # fmt: skip
        return logits if keep else logits[:, places]


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


def _logs(logits: "torch.Tensor") -> Logs:
    found: Logs = logits.double().log_softmax(dim=-1).cpu().numpy()
    return found


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _but_one(row: Sequence[int]) -> int:
    return len(row) - 1
