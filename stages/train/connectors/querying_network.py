"""Learned queries that read an image through transformers' Q-Former, with or without the prompt's states beside them.

Dropout is off: a connector is a function of its features. The modules are `Blip2QFormerModel`'s; with a prompt they
are those with a text half, which the prompt's states take in the place of word embeddings.
"""

from pathlib import Path

import torch
from torch import nn

from schemas.errors import ContractError, CuveeError
from stages.train.connectors.querying import QueryingSettings


class Querying(nn.Module):
    """(n, v, vision width) features to (n, queries, language width) tokens."""

    def __init__(self, settings: QueryingSettings, vision: int, language: int, prompted: bool) -> None:
        """Queries from N(0, 0.02), BERT's initial weights elsewhere, or those of `settings.pretrained`."""
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__()
        config = Blip2QFormerConfig(
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.expansion * settings.width,
            cross_attention_frequency=settings.cross_every,
            encoder_hidden_size=vision,
            use_qformer_text_input=prompted,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.queries = nn.Parameter(0.02 * torch.randn(1, settings.queries, settings.width))
        self.qformer = Blip2QFormerModel(config)
        self.prompt = nn.Linear(language, settings.width) if prompted else None
        self.out = nn.Linear(settings.width, language)
        if settings.pretrained is not None:
            _read(self, Path(settings.pretrained))
        if prompted:
            last = self.qformer.encoder.layer[-1]
            last.intermediate, last.output = Unread(), Unread()

    def forward(
        self, features: torch.Tensor, prompt: torch.Tensor | None = None, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens in the order of the queries; `prompt` (n, p, language width) with (n, p) bool of what is there."""
        queries = self.queries.expand(len(features), -1, -1)
        if not len(features):  # transformers cannot infer the heads' width of nothing
            read = queries
        elif self.prompt is None:
            read = self._read(queries, features, None)
        elif prompt is None or valid is None:
            raise ContractError("a connector that reads the prompt was given none")
        else:
            there = torch.cat([valid.new_ones(queries.shape[:2]), valid], dim=1)
            read = self._read(torch.cat([queries, self.prompt(prompt)], dim=1), features, there.long())
        tokens: torch.Tensor = self.out(read)
        return tokens

    def _read(self, states: torch.Tensor, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        count = self.queries.shape[1]
        out = self.qformer(query_embeds=states, query_length=count, attention_mask=mask, encoder_hidden_states=features)
        states = out.last_hidden_state
        return states[:, :count]


class Unread(nn.Module):
    """In the place of the last layer's text half, whose outcome nothing reads: no weights to train or to save."""

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """The last of what is given, unchanged."""
        return given[-1]


def _read(module: Querying, folder: Path) -> None:
    """Put a saved BLIP-2's Q-Former and queries into the module; what it lacks keeps its initial weights."""
    from safetensors.torch import load_file

    saved = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    found = {name: value for name, value in saved.items() if name.startswith("qformer.")}
    if "query_tokens" in saved:
        found["queries"] = saved["query_tokens"]
    mine = {
        name: value.shape for name, value in module.state_dict().items() if name.startswith(("qformer.", "queries"))
    }
    if lacking := sorted(mine.keys() - found.keys()):
        raise CuveeError(
            f"`pretrained` {str(folder)!r} lacks {len(lacking)} of {len(mine)} weights, {lacking[0]} first; name the "
            "folder of a BLIP-2 with as many layers, saved by transformers as safetensors"
        )
    for name, shape in mine.items():
        if found[name].shape != shape:
            raise CuveeError(
                f"`pretrained` {str(folder)!r} has {name} of shape {tuple(found[name].shape)}, expected "
                f"{tuple(shape)}; image tower, `queries` and `width` must be those it was trained with"
            )
    module.load_state_dict({name: found[name].float() for name in mine}, strict=False)
