"""What a fit holds, and when two are the same."""

import numpy as np
import pytest

from schemas.errors import ContractError
from stages.fit import Fit


def test_equal_means_equal_bits() -> None:
    fit = Fit({"a": np.array([0.0, 1.0])}, {"n": 1})
    assert fit == Fit({"a": np.array([0.0, 1.0])}, {"n": 1})
    others = [
        Fit({"a": np.array([-0.0, 1.0])}, {"n": 1}),
        Fit({"a": np.array([0.0, 1.0], np.float32)}, {"n": 1}),
        Fit({"a": np.array([[0.0, 1.0]])}, {"n": 1}),
        Fit({"a": np.array([0.0, 1.0])}, {"n": 2}),
        Fit({"b": np.array([0.0, 1.0])}, {"n": 1}),
    ]
    assert all(fit != other for other in others)
    assert fit != "a fit"


def test_other_types_are_refused() -> None:
    with pytest.raises(ContractError, match=r"'a' holds int16; expected one of float64"):
        Fit({"a": np.zeros(2, np.int16)})
    for value in (float("nan"), np.float32(1), {1, 2}):
        with pytest.raises(ContractError, match="no plain JSON"):
            Fit(facts={"value": value})
