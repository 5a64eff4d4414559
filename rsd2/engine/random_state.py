"""The state of all random generators of a process, as plain values and tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture_random_state() -> dict[str, Any]:
    """Read the generators of python, numpy, torch and, if it is in use, the current GPU.

    Returns:
        Plain Python values and tensors only, so that it loads with ``weights_only=True``.
    """
    generator = np.random.get_state(legacy=False)
    # Keys of uint32 as int64, because torch's support of uint32 is incomplete.
    keys, position = generator["state"]["key"], generator["state"]["pos"]
    name = str(generator["bit_generator"])
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position)),
        "numpy_gauss": (int(generator["has_gauss"]), float(generator["gauss"])),
        "torch": torch.get_rng_state(),
    }

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the random generators.

    Args:
        state: result of :func:`capture_random_state`; the state of a GPU is ignored if there is
            no GPU.
    """
    version, internal, gauss = state["python"]
    # Python's generator accepts a tuple only, whatever the file made of it.
    random.setstate((version, tuple(internal), gauss))

    name, keys, position = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, *state["numpy_gauss"]))

    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave the random generators as they were after a block, for instance an evaluation.

    Yields:
        Nothing.
    """
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)
