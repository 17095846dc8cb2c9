"""One caption through transformers' own forward pass, with nothing of ours but the order of tokens."""

from typing import Any

from stages.train.language_model import LanguageModel


def log_probabilities(language: LanguageModel, visual: Any, labels: list[int]) -> Any:
    """(t, vocabulary) of each label after `[visual][begin][the labels before it]`; visual is (v, width)."""
    import torch

    begin = [] if language.bos is None else [language.bos]
    text = language.model.get_input_embeddings()(torch.tensor([*begin, *labels[:-1]], dtype=torch.long))
    logits = language.model(inputs_embeds=torch.cat([visual, text])[None], use_cache=False).logits[0]
    return logits[-len(labels) :].float().log_softmax(dim=-1)
