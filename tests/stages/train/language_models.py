"""Causal language models of several families: tiny, random weights from a fixed seed, built offline."""

from functools import cache
from typing import Any

from stages.train.language_model import LanguageModel

VOCABULARY, BOS, EOS, LAYERS, WIDTH = 512, 1, 2, 4, 64
_LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0,
}  # fmt: skip
_GEMMA = {**_LLAMA, "head_dim": 16}
_HYBRID = {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"] * 2}
_NEOX = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
_GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 256,
    "initializer_range": 0.2, "bos_token_id": BOS, "eos_token_id": EOS,
}  # fmt: skip
_OPT = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "ffn_dim": 128, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "max_position_embeddings": 256, "init_std": 0.2, "word_embed_proj_dim": WIDTH,
    "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0,
}  # fmt: skip
_BLOOM = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4, "initializer_range": 0.2,
    "bos_token_id": BOS, "eos_token_id": EOS,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen3": ("Qwen3", _GEMMA),
    "mistral": ("Mistral", {**_LLAMA, "sliding_window": 12}),
    "gemma": ("Gemma", _GEMMA),
    "gemma2": ("Gemma2", {**_GEMMA, **_HYBRID, "final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3", {**_GEMMA, **_HYBRID, "initializer_range": 0.05}),
    "smollm3": ("SmolLM3", _LLAMA),
    "olmo2": ("Olmo2", _LLAMA),
    "granite": ("Granite", {**_LLAMA, "logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "gpt_neox": ("GPTNeoX", _NEOX),
    "phi": ("Phi", _LLAMA),
    "gpt2": ("GPT2", _GPT2),
    "opt": ("OPT", _OPT),
    "bloom": ("Bloom", _BLOOM),
}
SPLIT = tuple(name for name in FAMILIES if name not in ("granite", "opt", "bloom"))
"""Families whose layers can be told apart."""


@cache
def causal(family: str) -> Any:
    """The frozen transformers model."""
    import torch
    import transformers

    name, facts = FAMILIES[family]
    config = getattr(transformers, f"{name}TextConfig" if family == "gemma3" else f"{name}Config")(**facts)
    kind = {"gpt2": "GPT2LMHeadModel"}.get(family, f"{name}ForCausalLM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config)
    return model.train(False).requires_grad_(False)


@cache
def language(family: str) -> LanguageModel:
    """The same as training takes it."""
    return LanguageModel(causal(family), None, BOS, EOS, "cpu")
