"""Two ways through a model."""

import torch

from stages.train.agreement import agree, apart


def test_rounding_is_let_pass_and_anything_else_is_not() -> None:
    wanted = torch.linspace(-4, 4, 50)
    assert abs(apart(wanted + 0.004, wanted) - 0.001) < 1e-6
    assert agree(wanted + 0.003, wanted) and not agree(wanted + 0.005, wanted)
    half = wanted.bfloat16()
    assert agree(half * 1.03, half) and not agree(half + 1, half)
    assert not agree(wanted[:-1], wanted) and not agree(wanted * float("nan"), wanted)
