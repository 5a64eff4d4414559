"""Hashes of weights: of the content alone."""

from __future__ import annotations

import torch

from rsd2.projects.mutdet.weights import weights_digest


def test_order_and_memory_do_not_matter_content_does() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    base = weights_digest({"a": matrix, "b": torch.tensor(1)})
    assert base == weights_digest({"b": torch.tensor(1), "a": matrix.T.contiguous().T})
    changed = matrix.clone()
    changed[1, 2] += 1e-6
    others = [{"a": changed, "b": torch.tensor(1)}, {"c": matrix, "b": torch.tensor(1)}]
    others += [{"a": matrix.to(torch.bfloat16), "b": torch.tensor(1)}, {}]
    assert len({base, *map(weights_digest, others)}) == 5
