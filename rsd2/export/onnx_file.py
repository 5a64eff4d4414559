"""Write a detector as one ONNX file, weights and description included.

The file uses opset 18: some TensorRT versions compute `GridSample` of opset 20 wrongly, and
nothing here needs more.

Shapes: B images, S tokens of all levels, M heads, C channels of a head, Q queries, L levels,
P points.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from rsd2.io.files import write_atomically

from .deepness import DeepnessGraph
from .description import ExportError
from .graphs import DetectionGraph

OPSET = 18
NEEDS_EXTRA = (
    "ONNX needs the packages onnx, onnxscript and onnxruntime; install them by "
    "`pip install 'rsd2[export]'`"
)


def attention_by_grid_sample(
    value: torch.Tensor,
    spatial_shapes: Sequence[int],
    locations: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Compute `rsd2.ops.ms_deform_attn` with one ``grid_sample`` a level, for any number of images.

    The operator's reference processes the images in portions, and a graph would fix their number.
    Sampling by gathers takes about as long in ONNX Runtime and a multiple of the memory, because
    the four corners of each sample exist at a time.

    Args:
        value: (B, S, M, C) values of all levels.
        spatial_shapes: 2 L numbers: height, width, height, ...
        locations: (B, Q, M, L, P, 2) xy in [0, 1].
        weights: (B, Q, M, L, P) attention weights.

    Returns:
        (B, Q, M * C) attended values.
    """
    batch, _, heads, channels = value.shape
    shapes = list(zip(spatial_shapes[::2], spatial_shapes[1::2]))
    maps = value.permute(0, 2, 3, 1).flatten(0, 1)
    parts = maps.split([height * width for height, width in shapes], dim=2)

    # Runtimes turn coordinates into integers, which a distant point would not fit; 3 is outside.
    grids = (2 * locations - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2).clamp(-3.0, 3.0)
    shares = weights.permute(3, 0, 2, 4, 1).flatten(1, 2).unsqueeze(2)

    def mix(level: int) -> torch.Tensor:
        features = parts[level].unflatten(2, shapes[level])
        samples = F.grid_sample(features, grids[level], align_corners=False)
        return (samples * shares[level]).sum(2)

    # Summed level by level, so that the samples of all levels never exist together.
    total = functools.reduce(torch.add, map(mix, range(len(shapes))))
    return total.reshape(batch, heads * channels, -1).transpose(1, 2)


def trace(
    graph: DetectionGraph | DeepnessGraph,
    input_size: tuple[int, int],
    batch: int | None = 1,
    num_frames: int | None = None,
) -> torch.export.ExportedProgram:
    """Trace a detector by ``torch.export``; rsd2's operators stay operators.

    Args:
        graph: the detector, on the CPU.
        input_size: (height, width) of the images, pixels.
        batch: images in one call; None leaves the number open.
        num_frames: number of frames of a clip; None for a detector of images.

    Returns:
        The program, for ``.module()``, AOTInductor or `write_onnx`.

    Raises:
        ExportError: the number of images cannot be left open for this model, or it cannot be
            traced.
    """
    if batch is None and not graph.any_batch:
        raise ExportError(
            f"the graph of a {type(graph.model).__name__} takes a fixed number of images; pass "
            "--batch 1 or another number"
        )

    # Two images, because a size of one would be taken for a constant.
    frames = () if num_frames is None else (num_frames,)
    pixels = torch.zeros(batch or 2, *frames, 3, *input_size, dtype=graph.input_dtype)
    dynamic = {"pixels": {0: torch.export.Dim("batch")}} if batch is None else None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of its own deprecations
        try:
            return torch.export.export(graph, (pixels,), dynamic_shapes=dynamic)
        except (RuntimeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"a {type(graph.model).__name__} could not be traced: {reason}"
            ) from error


def write_onnx(
    program: torch.export.ExportedProgram,
    path: str | Path,
    output_names: Sequence[str],
    props: Mapping[str, str],
) -> None:
    """Write a traced detector as an ONNX file, with its weights inside.

    Args:
        program: program that :func:`trace` returns.
        path: path of the file; an existing one is replaced.
        output_names: names of the returned tensors, in their order.
        props: entries of ``metadata_props``.

    Raises:
        ExportError: the packages of the extra ``export`` are not installed, or ONNX has no form
            for an operator.
        OSError: the file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise ExportError(NEEDS_EXTRA) from error

    # Without a form of its own, the exporter would not know rsd2's attention operator.
    forms = torch.export.default_decompositions()
    forms[torch.ops.rsd2.ms_deform_attn.default] = attention_by_grid_sample
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        try:
            exported = torch.onnx.export(
                program.run_decompositions(forms),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=list(output_names),
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"the model cannot be written as ONNX: {reason}") from error

    if exported is None:
        raise ExportError("the model cannot be written as ONNX: torch.onnx.export gave no program")
    model = exported.model_proto

    # The exporter's notes on each node name files of the machine that exported.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""

    onnx.helper.set_model_props(model, dict(props))
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString())
