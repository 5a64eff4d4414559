"""Random state: restoring it repeats the numbers, also after saving without pickles."""

import random

import numpy as np
import torch

from rsd2.engine.random_state import (
    capture_random_state,
    preserved_random_state,
    restore_random_state,
)


def _draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2)


def _same(a, b):
    return a[:4] == b[:4] and torch.equal(a[4], b[4])


def test_state_saved_safely_repeats_the_numbers(tmp_path):
    random.gauss(0, 1), np.random.randn()  # leaves a cached second Gaussian in both
    torch.save(capture_random_state(), tmp_path / "state.pth")
    first = _draw()
    assert not _same(first, _draw())
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert _same(first, _draw())


def test_block_leaves_no_trace_even_if_it_fails():
    state = capture_random_state()
    expected = _draw()
    restore_random_state(state)
    try:
        with preserved_random_state():
            _draw()
            raise KeyError
    except KeyError:
        pass
    assert _same(expected, _draw())
