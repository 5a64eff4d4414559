"""Names for weights, by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Hash a state dict, whatever file it came from.

    Args:
        state: tensors by name, in any order.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode("utf-8"))
        value = state[key].detach().cpu().contiguous()
        # By its bytes, because NumPy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
