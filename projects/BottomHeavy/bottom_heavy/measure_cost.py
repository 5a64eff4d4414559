"""Measure what a trained detector costs: parameters, MACs, time and peak memory of one image.

    python projects/BottomHeavy/tools/measure_cost.py --run output/tiny_study/runs/r18_fpn_seed0 \\
        --output cost.json

One thread on the CPU, so that the numbers of several detectors compare.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.profiler import ProfilerActivity, profile

from rsd2 import env
from rsd2.config import ConfigError, load_config
from rsd2.io.files import write_atomically
from rsd2.weights.checkpoint import load_weights
from rsd2.weights.errors import CheckpointError

_WARM_UP, _ROUNDS = 3, 15


def measure(run: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Measure the model of a training with its last weights.

    Args:
        run: output folder of the training.
        size: (height, width) of the image, pixels.

    Returns:
        ``parameters``, ``backbone_parameters``, ``backbone_gmacs`` and ``pyramid_gmacs`` (multiply-
        accumulates of one image as the detector pads it, 10^9, the latter with the backbone),
        ``latency_ms`` (median), ``peak_mb`` (see `peak_of_tensors`), and what they were measured
        on.

    Raises:
        ConfigError: the folder has no config.
        CheckpointError: the folder has no weights.
    """
    # One thread: the numbers compare only if the number of cores does not enter.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = load_config(run / "config.yaml")
    model = instantiate(cfg.model).eval()
    load_weights(model, run / "model_final.pth", ema=bool(cfg.train.ema.enabled))

    height, width = size
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    batch = [{"image": image, "height": height, "width": width}]

    @torch.no_grad()
    def detect() -> object:
        return model(batch)

    # The first calls fill caches and choose algorithms.
    times = []
    for _ in range(_WARM_UP + _ROUNDS):
        start = time.perf_counter()
        detect()
        times.append(time.perf_counter() - start)

    # The detector pads an image so far that every level of the pyramid divides it.
    step = max(1, model.backbone.size_divisibility)
    padded = (math.ceil(height / step) * step, math.ceil(width / step) * step)
    bottom_up = model.backbone.bottom_up
    return {
        "parameters": _count(model),
        "backbone_parameters": _count(bottom_up),
        "backbone_gmacs": _gmacs(bottom_up, padded),
        "pyramid_gmacs": _gmacs(model.backbone, padded),
        "latency_ms": statistics.median(times[_WARM_UP:]) * 1e3,
        "peak_mb": peak_of_tensors(detect),
        "height": height,
        "width": width,
        "device": "cpu",
        "threads": 1,
        "machine": env.processor_name("cpu"),
    }


def peak_of_tensors(work: Callable[[], object]) -> float:
    """Measure how many bytes of tensors a call on the CPU has allocated at most at one time.

    The memory of the process would tell more about its allocator, which keeps freed blocks for
    later and so gives a larger network a lower peak. The bytes of tensors are the same in every
    call and on every machine; buffers inside the libraries of the kernels are left out.

    Args:
        work: function that is called once; what it makes and drops counts, what it found does not.

    Returns:
        10^6 bytes.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = work()
    del kept  # not earlier: the result belongs to the peak

    # Each allocation is an event with its bytes, and each release one with as many below zero.
    events = [one for one in recorded.profiler.kineto_results.events() if one.name() == "[memory]"]
    events.sort(key=lambda one: one.start_ns())
    return max(accumulate((one.nbytes() for one in events), initial=0)) / 1e6


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _gmacs(module: nn.Module, size: tuple[int, int]) -> float:
    counter = FlopCountAnalysis(module, torch.zeros(1, 3, *size))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return counter.total() / 1e9


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: the command line; that of the process if None.

    Returns:
        0 if done, 2 if the training cannot be used.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="output folder of a training")
    add("--output", type=Path, required=True, metavar="FILE", help="JSON to write")
    add("--size", type=int, nargs=2, default=[256, 320], help="of the image: height width")
    args = parser.parse_args(argv)

    try:
        costs = measure(args.run, tuple(args.size))
    except (ConfigError, CheckpointError, OSError) as error:
        print(f"measure_cost: {error}", file=sys.stderr)
        return 2

    write_atomically(args.output, json.dumps(costs, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
