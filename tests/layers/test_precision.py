"""Half precision is lifted, everything else is left alone."""

from __future__ import annotations

import pytest
import torch

from rsd2.layers import at_least_float32


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16])
def test_half_becomes_float32(given):
    x = torch.tensor([0.5, -3.0], dtype=given)
    assert at_least_float32(x).dtype == torch.float32
    assert at_least_float32(x).tolist() == [0.5, -3.0]


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_others_are_the_same_object(given):
    x = torch.zeros(2, dtype=given)
    assert at_least_float32(x) is x
