"""Token scores against the definitions."""

import numpy as np
import pytest
import torch

from stages.captioners.likelihood import TokenScores, plain_tokens, token_scores
from tests.stages.raters.tiny_mllm import tokenizer


def test_a_token_s_numbers_are_its_logit_and_its_log_probability() -> None:
    torch.manual_seed(1)
    image, text, tokens = torch.randn(5, 9), torch.randn(5, 9), [3, 0, 8, 8, 1]
    found = token_scores(image, text, tokens)
    for place, token in enumerate(tokens):
        assert found.logit_image[place] == pytest.approx(float(image[place, token]))
        exact = np.exp(image[place].double().numpy())
        assert found.log_p_image[place] == pytest.approx(np.log(exact[token] / exact.sum()))
    assert found.pmi == pytest.approx((found.log_p_image - found.log_p_text).sum())


def test_cal_s_weight_is_the_mean_of_clamped_and_pooled_differences() -> None:
    gaps = np.array([0.2, 7.0, 3.0, -4.0])
    found = TokenScores(np.zeros(4), np.zeros(4), gaps, np.zeros(4)).weight
    clamped = [1.0, 5.0, 3.0, 1.0]
    pooled = [np.mean(clamped[max(0, place - 1) : place + 2]) for place in range(4)]
    assert found == pytest.approx(np.mean(pooled))
    assert TokenScores(np.zeros(1), np.zeros(1), np.array([2.0]), np.zeros(1)).weight == pytest.approx(2.0)


def test_no_token_of_a_caption_is_special() -> None:
    words = tokenizer()
    for caption in ("a dog</s>", "<image><image>", "<s<s>>", "</</s>s>", "plain"):
        assert not set(plain_tokens(words, caption)) & set(words.added_tokens_decoder)
    assert plain_tokens(words, "plain") == words("plain", add_special_tokens=False)["input_ids"]
