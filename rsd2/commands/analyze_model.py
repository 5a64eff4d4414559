r"""Count the parameters, FLOPs and activations of a config's model, or print its structure.

    python tools/analyze_model.py --config-file CONFIG.py --size 1024 1024
    python tools/analyze_model.py --config-file CONFIG.py --tasks parameter structure
    python tools/analyze_model.py --config-file projects/MICML/configs/micml_dla34_rscardata.py \
        --size 512 512

Runs on the CPU with random weights and one random image or clip. A FLOP is a multiply-add, as in
papers. Operators whose work is not in the total, mostly elementwise ones, are listed with their
calls.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from fvcore.nn import (
    ActivationCountAnalysis,
    FlopCountAnalysis,
    flop_count_table,
    parameter_count,
)
from fvcore.nn.jit_handles import get_shape
from omegaconf import DictConfig
from torch import nn

from rsd2.config import ConfigError, load_config
from rsd2.io.program import print_error

TASKS = ("parameter", "flop", "activation", "structure")


def parameter_table(model: nn.Module, depth: int) -> str:
    """Tabulate trainable and all parameters per module.

    Args:
        model: any module.
        depth: levels of modules to show, >= 1.

    Returns:
        One line per module, the whole model first.
    """
    total = parameter_count(model)
    trainable: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        # A parameter counts for its module and for every module around it.
        if parameter.requires_grad:
            parts = name.split(".")
            trainable.update({".".join(parts[:i]): parameter.numel() for i in range(len(parts))})

    lines = [f"{'module':<48}{'parameters':>14}{'trainable':>14}"]
    for name, _ in model.named_modules():
        if name.count(".") < depth:
            label = name or type(model).__name__
            lines.append(f"{label:<48}{total[name]:>14,}{trainable[name]:>14,}")

    return "\n".join(lines)


def random_input(height: int, width: int, num_frames: int | None = None) -> list[dict[str, Any]]:
    """Make a batch of one random image or clip in Detectron2's form.

    Args:
        height: height of the input, pixels, >= 1.
        width: width of the input, pixels, >= 1.
        num_frames: frames of a clip; None for an image.

    Returns:
        A list of one dict with ``image`` (3, height, width) uint8 or ``frames`` (num_frames, 3,
        height, width) uint8, and ``height``, ``width``.
    """
    # A fixed seed, so that two runs count the same operators.
    generator = torch.Generator().manual_seed(0)
    shape = (3, height, width) if num_frames is None else (num_frames, 3, height, width)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    key = "image" if num_frames is None else "frames"
    return [{key: pixels, "height": height, "width": width}]


class _TensorInTensorsOut(nn.Module):
    """A detector in the form that the tracer needs: pixels in, every output tensor out.

    The trace would leave out work whose result is not returned.
    """

    def __init__(self, model: nn.Module, batch: list[dict[str, Any]]) -> None:
        super().__init__()
        self.model, self._batch = model, batch
        self._key = "frames" if "frames" in batch[0] else "image"

    @property
    def pixels(self) -> torch.Tensor:
        return self._batch[0][self._key]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = tuple(_tensors(self.model([{**self._batch[0], self._key: pixels}])))
        if not outputs:
            raise RuntimeError("the model returned no tensor, so its work cannot be counted")
        return outputs


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """Count multiply-adds of scaled dot-product attention: the scores, then the weighted sum."""
    query, key, value = (get_shape(x) for x in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Instances):
        yield from _tensors(value.get_fields())
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "tensor"):  # Boxes, RotatedBoxes
        yield from _tensors(value.tensor)


def analyze(
    model: nn.Module, batch: list[dict[str, Any]], tasks: list[str], depth: int
) -> dict[str, Any]:
    """Run the requested analyses and print them.

    Args:
        model: model in eval mode.
        batch: input of the model, one image or clip.
        tasks: names from :data:`TASKS`.
        depth: levels of modules to show, >= 1.

    Returns:
        The totals: ``parameters``, ``flops``, ``not_counted`` (operator -> calls),
        ``activations`` (elements of the outputs of convolutions and matrix products).
    """
    totals: dict[str, Any] = {}
    if "structure" in tasks:
        print(model)
    if "parameter" in tasks:
        print(parameter_table(model, depth))
        totals["parameters"] = parameter_count(model)[""]
    if "flop" not in tasks and "activation" not in tasks:
        return totals

    # Both counters trace the model; they share one wrapper with fixed inputs.
    wrapper = _TensorInTensorsOut(model, batch)
    analyses = [
        kind(wrapper, wrapper.pixels) for kind in (FlopCountAnalysis, ActivationCountAnalysis)
    ]
    for analysis in analyses:
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # Warnings about operators without a count would bury the table; the totals name them.
        analysis.tracer_warnings("none")
    flops, activations = analyses
    # fvcore knows attention as matrix products only, and would not count the fused operator.
    flops.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
    with torch.no_grad():
        if "flop" in tasks:
            print(flop_count_table(flops, max_depth=depth + 1, activations=activations))
            totals["flops"] = int(flops.total())
            totals["not_counted"] = dict(flops.unsupported_ops())
        if "activation" in tasks:
            totals["activations"] = int(activations.total())

    return totals


def clip_length(cfg: DictConfig, wanted: int | None) -> int | None:
    """Choose how many frames the model gets.

    Args:
        cfg: config; its test mapper, if it has one, tells whether the model takes clips.
        wanted: value of the command line, or None.

    Returns:
        Frames of a clip; None for a model of images.

    Raises:
        ConfigError: a model of images cannot take frames.
    """
    # A config may export the model alone, without loaders.
    mapper = ((cfg.get("dataloader") or {}).get("test") or {}).get("mapper") or {}
    if wanted is not None and mapper and "num_frames" not in mapper:
        raise ConfigError("the model of this config is one of images; leave --num-frames out")
    return mapper.get("num_frames") if wanted is None else wanted


def run(argv: list[str] | None = None) -> dict[str, Any]:
    """Analyze the model of a config.

    Args:
        argv: arguments; None takes those of the command line.

    Returns:
        The totals, which are also printed as JSON.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS[:3]))
    parser.add_argument(
        "--size", nargs=2, type=int, default=(1024, 1024), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument(
        "--num-frames",
        type=int,
        metavar="T",
        help="frames of a clip, for models of clips; by default as in the config's test mapper",
    )
    parser.add_argument("--depth", type=int, default=2, help="levels of modules to show")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    args = parser.parse_args(argv)
    if min(*args.size, args.depth, 1 if args.num_frames is None else args.num_frames) < 1:
        parser.error(
            "--size, --depth and --num-frames must be positive, got "
            f"{args.size}, {args.depth} and {args.num_frames}"
        )

    cfg = load_config(args.config_file, args.opts)
    # Weights do not change the counts, but a seed keeps data-dependent branches the same.
    torch.manual_seed(0)
    model = instantiate(cfg.model).eval()
    height, width = args.size
    batch = random_input(height, width, clip_length(cfg, args.num_frames))
    totals = analyze(model, batch, args.tasks, args.depth)
    print(json.dumps({"input": list(args.size), **totals}))
    return totals


def main(argv: list[str] | None = None) -> int:
    """Analyze the model of a config.

    Args:
        argv: command line without the program's name; None takes that of the process.

    Returns:
        0 if done; 1 if the config cannot be used, with a message on stderr.
    """
    try:
        run(argv)
    except ConfigError as problem:
        print_error(problem)
        return 1

    return 0
