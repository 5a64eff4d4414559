"""A file of `rsd2 export` in ONNX Runtime against the same graph in eager torch and AOTInductor.

Two small detectors of generated scenes with seeded random weights, one window, from pixels to
candidates; thresholds and NMS follow outside every contender. Before a contender is timed, its
scores are asserted equal to those of eager torch. The first call of AOTInductor compiles, which
takes minutes and a C++ compiler.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from torch import Tensor

from rsd2.config import load_config
from rsd2.export.graphs import DetectionGraph
from rsd2.export.kinds import graph_of
from rsd2.export.onnx_file import trace, write_onnx

from .harness import Case

# Detector -> config, side of the window in pixels.
DETECTORS = {
    "rotated DETR": ("rotated_deformable_detr_small_synthetic.py", 128),
    "Faster R-CNN": ("BottomHeavy/configs/faster_rcnn_r18_fpn_synthetic_tiny.py", 192),
}
TOLERANCE = 1e-4

Run = Callable[[], Sequence[Tensor]]


def cases() -> list[Case]:
    """List the detectors."""
    return [_case(name, config, side) for name, (config, side) in DETECTORS.items()]


def _case(name: str, config: str, side: int) -> Case:
    @functools.cache
    def graph() -> DetectionGraph:
        torch.manual_seed(0)
        cfg = load_config(config)
        if "test_sizes" in cfg.model:
            cfg.model.test_sizes = []  # several scales at a time cannot be exported
        return graph_of(instantiate(cfg.model))

    @functools.cache
    def pixels() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(256, (1, 3, side, side), generator=generator, dtype=torch.uint8)

    def eager() -> Sequence[Tensor]:
        with torch.no_grad():
            return graph()(pixels())

    def checked(make: Callable[[DetectionGraph, Tensor], Run]) -> Callable[[], Sequence[Tensor]]:
        @functools.cache
        def runner() -> Run:
            run = make(graph(), pixels())
            # Random weights make ties, so that the order of the candidates means nothing.
            found, expected = (x()[1].flatten().sort().values for x in (run, eager))
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
            return run

        return lambda: runner()()

    return Case(
        f"export {name}",
        f"1 window of {side} x {side} pixels",
        checked(in_onnxruntime),
        {"eager torch": eager, "AOTInductor": checked(by_inductor)},
        compiles=True,
    )


def in_onnxruntime(graph: DetectionGraph, pixels: Tensor) -> Run:
    """Write a detector as an ONNX file, and return a function that runs it.

    Args:
        graph: the detector.
        pixels: (B, 3, H, W) uint8.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(trace(graph, tuple(pixels.shape[2:])), path, graph.output_names, {})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    given = {"pixels": pixels.numpy()}
    return lambda: [torch.from_numpy(found) for found in session.run(None, given)]


def by_inductor(graph: DetectionGraph, pixels: Tensor) -> Run:
    """Compile a detector by AOTInductor, and return a function that runs it.

    Args:
        graph: the detector.
        pixels: (B, 3, H, W) uint8.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = torch._inductor.aoti_compile_and_package(
            trace(graph, tuple(pixels.shape[2:])), package_path=f"{folder}/detector.pt2"
        )
        program = torch._inductor.aoti_load_package(path)
    return lambda: program(pixels)
