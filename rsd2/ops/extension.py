"""Registration of rsd2's operators with torch's dispatcher: ``torch.ops.rsd2.*``.

The compiled library ``rsd2/ops/_C*.so`` defines the operators and registers kernels for the devices
that it was built for. Without it the same operators are defined here. Each operator's Python file
then adds, by :func:`register_operator`, what is the same for every device (shapes for tracing,
gradient, autocast rule) and its PyTorch reference for every device that has no kernel. So an
operator always exists, traces and compiles, and a kernel replaces nothing but time and memory.

``RSD2_OPS=reference`` in the environment, read once at import, leaves the library alone and lets
the references stand in everywhere, without a warning.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd.function import once_differentiable

from rsd2 import __version__

# The same as in csrc/library.cpp, which says what they mean.
SCHEMAS = (
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    "box_iou_rotated.out(Tensor boxes1, Tensor boxes2, *, Tensor(a!) out) -> ()",
    "box_iou_rotated_backward(Tensor grad, Tensor boxes1, Tensor boxes2) -> (Tensor, Tensor)",
    "paired_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    "paired_iou_rotated_backward(Tensor grad, Tensor boxes1, Tensor boxes2) -> (Tensor, Tensor)",
    "sparse_iou_rotated(Tensor boxes1, Tensor boxes2, float threshold) "
    "-> (Tensor rows, Tensor columns, Tensor iou)",
    "max_iou_rotated(Tensor boxes1, Tensor boxes2) -> (Tensor row_max, Tensor row_argmax, "
    "Tensor column_max, Tensor column_argmax)",
    "batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
    "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> Tensor",
    "ms_deform_attn_backward(Tensor grad, Tensor value, SymInt[] spatial_shapes, "
    "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
    "roi_align_rotated(Tensor features, Tensor rois, SymInt[] output_size, "
    "float spatial_scale, int sampling_ratio) -> Tensor",
    "roi_align_rotated_backward(Tensor grad, Tensor rois, SymInt[] features_shape, "
    "float spatial_scale, int sampling_ratio) -> Tensor",
)
DEVICES = ("CPU", "CUDA")
REBUILD = "pip install --no-build-isolation --no-deps -e ."
# (operator, dispatch key) whose implementation is the reference; what has been warned of.
_REFERENCES: set[tuple[str, str]] = set()
_WARNED: list[str] = []


def _load() -> tuple[Path | None, str]:
    """Load the compiled library; return its path, or None and the reason."""
    if os.environ.get("RSD2_OPS") == "reference":
        return None, "RSD2_OPS=reference asks for the references"

    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if not found:
        return None, "rsd2 was installed without its compiled library"

    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        needs = "kernels for the CPU alone load into torch 2.10 and later, others into their own"
        return None, f"{found[0]} does not load into torch {torch.__version__}; {needs} ({error})"

    # A library of older sources loads without complaint but would compute something else.
    for schema in SCHEMAS:
        name, _, overload = schema.partition("(")[0].partition(".")
        packet = getattr(torch.ops.rsd2, name, None)
        operator = getattr(packet, overload or "default", None)
        if operator is None or str(operator._schema) != f"rsd2::{schema}":
            raise ImportError(
                f"{found[0]} was compiled from other sources than rsd2 {__version__}: its operator "
                f"{name} differs. Build it again by `{REBUILD}`, or remove it"
            )
    return found[0], ""


LIBRARY_PATH, WHY_NOT = _load()
# A library takes its registrations along when it is collected, so it lives here.
if LIBRARY_PATH is None:
    _LIBRARY = torch.library.Library("rsd2", "DEF")
    for _schema in SCHEMAS:
        _LIBRARY.define(_schema)
else:
    _LIBRARY = torch.library.Library("rsd2", "FRAGMENT")


def is_compiled(name: str, device: str) -> bool:
    """Tell whether an operator has a compiled kernel.

    Args:
        name: name of the operator, like ``box_iou_rotated`` or ``box_iou_rotated.out``.
        device: dispatch key, ``CPU`` or ``CUDA``.
    """
    return (name, device) not in _REFERENCES and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"rsd2::{name}", device
    )


def build_info() -> str:
    """Describe the compiled library by path, versions and instruction set; or why it is absent."""
    if LIBRARY_PATH is None:
        return WHY_NOT
    own, built_with, isa = torch.ops.rsd2.build_info().split()
    return f"{LIBRARY_PATH}, rsd2 {own}, built with torch {built_with}; CPU kernels: {isa}"


def register_operator(
    name: str,
    reference: Callable,
    fake: Callable,
    *,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
    autocast: torch.dtype | None = torch.float32,
    has_kernel: bool = True,
) -> None:
    """Complete an operator of :data:`SCHEMAS`.

    Args:
        name: name of the operator, with its overload if it has one.
        reference: plain PyTorch on any device, with the schema's arguments; becomes the
            implementation for each device without a kernel.
        fake: the same arguments, returns empty tensors of the right shape and dtype.
        backward: function as :func:`torch.library.register_autograd` takes it, differentiable no
            further; None if the operator is not differentiable.
        setup_context: function that saves what ``backward`` needs.
        autocast: dtype to which autocast casts half-precision and float32 inputs; None: it leaves
            them alone.
        has_kernel: False for an operator that is plain PyTorch everywhere by design and needs no
            warning.
    """
    qualified = f"rsd2::{name}"
    for device in DEVICES:
        # A device with a compiled kernel keeps it.
        if not torch._C._dispatch_has_kernel_for_dispatch_key(qualified, device):
            function = _warning_once(name, device, reference) if has_kernel else reference
            _LIBRARY.impl(name, function, device)
            _REFERENCES.add((name, device))
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)

    if backward is not None:
        torch.library.register_autograd(
            qualified,
            once_differentiable(backward),
            setup_context=setup_context,
            lib=_LIBRARY,
        )

    if autocast is not None:
        for device in DEVICES:
            _LIBRARY.impl(name, _autocast_rule(name, device, autocast), f"Autocast{device}")


def _warning_once(name: str, device: str, reference: Callable) -> Callable:
    @functools.wraps(reference)
    def run(*args, **kwargs):
        # Read at each call: a test or a user may set it after the import.
        if os.environ.get("RSD2_OPS") != "reference":
            _warn(name, device)
        return reference(*args, **kwargs)

    return run


def _warn(name: str, device: str) -> None:
    """Say once in the life of a process that a reference stands in for a kernel."""
    if _WARNED:
        return
    _WARNED.append(name)

    reason = WHY_NOT or f"the compiled library has no {device} kernel of it"
    warnings.warn(
        f"rsd2.ops.{name} runs as plain PyTorch on {device}, slower than a compiled kernel: "
        f"{reason}. Where there is a C++ compiler (for CUDA: nvcc), `{REBUILD}` builds it; "
        "RSD2_OPS=reference silences this. `python -m rsd2.env` lists all operators.",
        stacklevel=4,
    )


def _autocast_rule(name: str, device: str, dtype: torch.dtype) -> Callable:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.rsd2, packet), overload or "default")
    device = device.lower()

    def cast(value):
        # float64 stays: a caller who asks for it wants its digits also under autocast.
        if (
            isinstance(value, torch.Tensor)
            and value.is_floating_point()
            and value.dtype != torch.float64
        ):
            return value.to(dtype)
        return value

    def run(*args, **kwargs):
        # Off inside, or the operator would come back to this rule for ever.
        with torch.autocast(device, enabled=False):
            return operator(*map(cast, args), **{key: cast(v) for key, v in kwargs.items()})

    return run
