"""Attention and rotated RoIAlign are compiled for several instruction sets, all of them right.

A processor runs the widest set that it has by itself; the variable RSD2_ISA lowers it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rsd2.ops.extension import is_compiled

PROGRAM = """
import sys, torch, rsd2.ops
given = torch.load(sys.argv[1], weights_only=True)
found = [torch.ops.rsd2.ms_deform_attn(*given["attention"])]
found += torch.ops.rsd2.ms_deform_attn_backward(given["grad"], *given["attention"])
found.append(torch.ops.rsd2.roi_align_rotated(*given["regions"]))
rois, scale, ratio = given["regions"][1], *given["regions"][3:]
shape = given["regions"][0].shape
found.append(torch.ops.rsd2.roi_align_rotated_backward(found[-1], rois, shape, scale, ratio))
torch.save(found, sys.argv[2])
"""
# Two lines of the cache, one, a register of 16 bytes, three numbers: every kind of block.
CHANNELS = 32 + 16 + 4 + 3


def cases(dtype: torch.dtype) -> dict:
    levels = [(5, 7), (3, 4)]
    value = torch.randn(2, 47, 3, CHANNELS, dtype=dtype)
    locations = 1.6 * torch.rand(2, 300, 3, 2, 2, 2, dtype=dtype) - 0.3
    weights = torch.rand(2, 300, 3, 2, 2, dtype=dtype)
    rois = torch.tensor([[0, 8.0, 6, 9, 5, 30], [1, 4, 4, 20, 3, -70]], dtype=dtype)
    return {
        "attention": (value, [n for pair in levels for n in pair], locations, weights),
        "grad": torch.randn(2, 300, 3 * CHANNELS, dtype=dtype),
        "regions": (torch.randn(2, CHANNELS, 12, 16, dtype=dtype), rois, [3, 2], 0.5, 2),
    }


@pytest.mark.skipif(not is_compiled("ms_deform_attn", "CPU"), reason="nothing is compiled")
def test_every_set_gives_the_same(dtype, tmp_path):
    torch.save(cases(dtype), tmp_path / "given.bin")
    results = []
    for isa in ("", "avx2", "default"):
        target = tmp_path / f"found{isa}.bin"
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "given.bin"), str(target)]
        subprocess.run(command, env={**os.environ, "RSD2_ISA": isa}, check=True)
        results.append(torch.load(target, weights_only=True))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])
