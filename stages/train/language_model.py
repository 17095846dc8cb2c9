"""A frozen causal language model that continues visual tokens with a caption."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.train.decoder_layers import decoder_layers
from stages.train.generation import greedy_captions
from stages.train.injection import Halves, halves
from stages.train.label_head import label_head
from stages.train.layout import NONE, Layout, Said, lay_out
from stages.train.passes import entrance, inside, last_states, rows_can_be_shared, states_at
from stages.train.precision import frozen_dtype
from stages.train.recomputation import recomputed
from stages.train.templates import Chat, Plain, Template

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.settings import TrainSettings


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
    templates: tuple[Template, ...] = ()
    """What may stand around image and caption; the first is that of evaluation. None: the plain one."""
    recompute: bool = False
    """Compute layers again for the backward pass, and keep less."""

    @property
    def width(self) -> int:
        """Width of its input embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def tokenize(self, captions: list[str]) -> list[list[int]]:
        """Token ids per caption, without special tokens."""
        found: list[list[int]] = self.tokenizer(captions, add_special_tokens=False)["input_ids"]
        return found

    @property
    def template(self) -> Template:
        """The first template."""
        return self.templates[0] if self.templates else Plain().template(self.tokenizer, self.bos)

    def addressed(self, wordings: Sequence[Plain | Chat]) -> "LanguageModel":
        """The same model with templates.

        Raises:
            CuveeError: one that its tokenizer does not know.
        """
        made = tuple(wording.template(self.tokenizer, self.bos) for wording in wordings)
        return replace(self, templates=made)

    def said(self, ids: Sequence[int], whole: bool, image: int | None, template: Template | None = None) -> Said:
        """A caption behind its image, its end predicted where it is whole; text alone starts from a begin or end token.

        Args:
            ids: the caption's tokens.
            whole: False where it was cut.
            image: number of its image among those shown; None: there is none.
            template: what stands around; default: the first one.
        """
        labels = [*ids, self.eos] if whole else ids
        if image is None:
            return Said(labels, None, between=(self.eos if self.bos is None else self.bos,))
        around = template or self.template
        return Said(labels, image, around.before, around.between)

    def show(
        self,
        bridge: "Bridge",
        features: "torch.Tensor",
        templates: "Sequence[Template] | None" = None,
        levels: "torch.Tensor | None" = None,
    ) -> "Shown":
        """What this model sees of images.

        Args:
            bridge: what stands between tower and model.
            features: (n, v, vision width) of the images.
            templates: (n,) what stands around each, for a connector that reads it; default: the first one.
            levels: (n,) alignment level per image, for an option that has such; None: the highest.
        """
        around = templates or [self.template] * len(features)
        prompt = self.prompt_states(around, bridge.layer, bridge) if bridge.reads_prompt else None
        return bridge.show(features, prompt, levels)

    def label_logits(self, layout: Layout, shown: "Shown | None", bridge: "Bridge | None") -> "torch.Tensor":
        """(L, vocabulary) float32 logits of a layout's labels, in their order.

        Args:
            layout: where everything stands; its images are those of `shown`.
            shown: the images' tokens; None: the layout has text alone.
            bridge: what acts inside the model; None: nothing does.

        Raises:
            CuveeError: the model cannot be run in this way.
        """
        import torch

        head = self.prepared(layout, shown)
        seen = torch.from_numpy(layout.visual != NONE).to(self.device)
        again = partial(inside, bridge, self.model, seen)
        layers = decoder_layers(self.model) if self.recompute and torch.is_grad_enabled() else ()
        with again(), recomputed(layers, again):
            hidden = last_states(self, layout, shown)
            chosen = hidden.flatten(0, 1)[torch.from_numpy(layout.places).to(self.device)]
            logits: torch.Tensor = head(inputs_embeds=chosen[None]).logits
        return logits[0].float()

    def prompt_states(
        self, templates: Sequence[Template], layer: int, bridge: "Bridge | None"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """(n, p, width) states at the input of a layer of the text before each caption, and which are there (n, p)."""
        import torch

        rows = [template.before + template.between for template in templates]
        longest = max((len(row) for row in rows), default=0)
        there = torch.tensor([[place < len(row) for place in range(longest)] for row in rows], device=self.device)
        if not longest:
            return torch.zeros(len(rows), 0, self.width, device=self.device), there.view(len(rows), 0)
        layout = lay_out([Said([self.eos], None, between=row or (self.eos,)) for row in rows], 0)
        with inside(bridge, self.model, None):
            return states_at(self, layout, layer).float(), there

    def generate(self, shown: "Shown", most: int, bridge: "Bridge | None") -> list[list[int]]:
        """Greedy captions of the images shown behind the first template: at most `most` ids each, without the end."""
        return greedy_captions(self, shown, most, bridge)

    def prepared(self, layout: Layout, shown: "Shown | None") -> Any:
        """The head, after every way through the model has been tried that this layout takes.

        Raises:
            CuveeError: one that this model has not.
        """
        self.split(shown)
        if not layout.is_plain and not self.shares_rows:
            raise CuveeError(
                f"language model {type(self.model).__name__} goes by more than masks and position ids, so samples "
                "cannot share a row; leave out `pack` and `share_prefix`"
            )
        return self.head

    @cached_property
    def head(self) -> Any:
        """The step from last hidden states to logits."""
        return label_head(self.model)

    def split(self, shown: "Shown | None") -> Halves:
        """The model in two where images enter; each way is made and tried once."""
        layer = 0 if shown is None else entrance(self.model, shown)
        if layer not in self._halves:
            self._halves[layer] = halves(self.model, layer)
        return self._halves[layer]

    @cached_property
    def shares_rows(self) -> bool:
        """Whether several documents may stand in one row: whether masks and positions are all that places go by."""
        return rows_can_be_shared(self)

    @cached_property
    def _halves(self) -> dict[int, Halves]:
        return {}

    def embed(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Input embeddings of text."""
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embedded


def language_of(settings: "TrainSettings", device: str) -> LanguageModel:
    """The language model of a training, as its settings want it spoken to.

    Raises:
        CuveeError: it does not load, or its tokenizer lacks what a template needs.
    """
    language = load_language_model(settings.language_folder, device, frozen_dtype(settings.precision))
    return replace(language.addressed(settings.templates), recompute=settings.gradient_checkpointing)


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
