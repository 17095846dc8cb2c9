"""The two tiny shapes of language models that options must work on: gains alone and linear layers as such, or not."""

from functools import cache
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    """A frozen causal language model with random weights."""
    return causal_model(request.param)


@cache
def causal_model(kind: str) -> Any:
    """The same by its kind."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ends = {"vocab_size": 512, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "llama":
        shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
        made: Any = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, **ends))
    else:
        made = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=4, n_head=4, **ends))
    return made.train(False).requires_grad_(False)


@pytest.fixture(scope="session")
def ids() -> torch.Tensor:
    """(2, 9) token ids."""
    return torch.randint(0, 512, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def visual() -> torch.Tensor:
    """(2, 9) where visual tokens are."""
    return (torch.arange(9) < 3).expand(2, 9)
