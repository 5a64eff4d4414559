"""Report on this machine (versions, devices, compilers, operators), and the memory of a call.

``python -m rsd2.env`` prints it; put its output into a bug report. Works without Detectron2.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

OPERATORS = {  # as users know them -> as the dispatcher does
    "box_iou_rotated": "box_iou_rotated",
    "nms_rotated": "batched_nms_rotated",
    "roi_align_rotated": "roi_align_rotated",
    "ms_deform_attn": "ms_deform_attn",
}
DETECTRON2_OPERATORS = (
    "box_iou_rotated",
    "nms_rotated",
    "roi_align_rotated_forward",
    "roi_align_rotated_backward",
)
PACKAGES = {  # line -> distributions that may provide it, the first one installed counts
    "torchvision": ("torchvision",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "shapely": ("shapely",),
    "opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "pillow": ("pillow",),
    "pycocotools": ("pycocotools",),
    "faster-coco-eval": ("faster-coco-eval",),
    "fvcore": ("fvcore",),
    "iopath": ("iopath",),
    "omegaconf": ("omegaconf",),
}
CARRIED_SUFFIX = "+python"  # of the version that `rsd2 install-detectron2` gives its distribution
INSTALL_HINT = "rsd2 install-detectron2"
BUILD_HINT = (
    "They are compiled where a C++ compiler is there (for CUDA nvcc, and a GPU or FORCE_CUDA=1): "
    "pip install -v --no-build-isolation --no-deps -e . says what it found."
)


def distribution_version(*names: str) -> str | None:
    """Find the first installed distribution of several.

    Args:
        names: distribution names, in order of preference.

    Returns:
        Its version, preceded by its name when it is not the first; None if none is installed.
    """
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue

        return version if name == names[0] else f"{version} ({name})"
    return None


def has_module(name: str) -> bool:
    """Tell whether a module can be found; a package on the way that fails to import counts as no.

    Args:
        name: dotted module name.
    """
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # whatever a broken third-party package raises while it is imported
        return False
    # A namespace, which any folder of that name makes, has neither.
    return spec is not None and (spec.origin is not None or spec.loader is not None)


def package_folder(name: str) -> Path:
    """Find the folder of an installed package by importing it.

    Args:
        name: name of the package.

    Returns:
        The folder of its ``__init__.py``, or of the first of its parts if it has none.

    Raises:
        Exception: whatever the package raises while it is imported.
    """
    return Path(importlib.import_module(name).__path__[0])


def describe_detectron2() -> str:
    """Say which Detectron2 is here and where it came from."""
    if not has_module("detectron2"):
        return f"absent; install it with: {INSTALL_HINT}"

    version = distribution_version("detectron2") or "version unknown (no distribution)"
    # Our installer marks the Python part that it carries by a suffix of the version.
    if has_module("detectron2._C"):
        origin = "own build with its compiled extension"
    elif version.endswith(CARRIED_SUFFIX):
        origin = "carried Python part, no compiled extension"
    else:
        origin = "own copy, no compiled extension"

    try:
        location = package_folder("detectron2")
    except Exception as error:  # the report must name a broken package, not die of it
        return f"{version}; {origin}; cannot be imported: {type(error).__name__}: {error}"
    return f"{version}; {origin}; {location}"


def first_line_of(command: str, *arguments: str, containing: str = "") -> str | None:
    """Run a program and keep one line of what it prints.

    Args:
        command: program name, looked up on PATH.
        arguments: arguments of the program.
        containing: keep the first line that holds this text.

    Returns:
        "line (path)", or None if the program is absent, fails or takes longer than ten seconds.
    """
    path = shutil.which(command)
    if path is None:
        return None
    try:
        output = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None

    lines = [line for line in output.stdout.splitlines() if containing in line]
    return f"{lines[0].strip()} ({path})" if output.returncode == 0 and lines else None


def describe_devices() -> list[tuple[str, str]]:
    """List torch, its CUDA version and every device it can use."""
    if not has_module("torch"):
        return [("torch", "absent; install it with: bash tools/setup_env.sh")]

    torch = importlib.import_module("torch")
    lines = [("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda or 'none'}")]
    lines.append(("cpu", f"{platform.machine()}, {torch.get_num_threads()} threads"))
    if not torch.cuda.is_available():
        return [*lines, ("cuda", "no device; everything runs on the CPU")]

    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        text = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
        lines.append((f"cuda:{index}", f"{text}, compute {device.major}.{device.minor}"))
    return lines


@functools.cache
def processor_name(device: str) -> str:
    """Name the processor or GPU, to stand beside a measurement.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        The model, with the number of cores and the instruction set of a CPU.
    """
    torch = importlib.import_module("torch")
    if device == "cuda":
        return torch.cuda.get_device_name()

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # not Linux
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {max(1, len(names))} cores, {torch.backends.cpu.get_cpu_capability()}"


def peak_memory(work: Callable[[], object], device: str) -> float | None:
    """Measure the peak memory of a call, its result included, above the memory in use before.

    On a CPU the kernel's high-water mark is reset before the call; on a GPU the allocator tells.

    Args:
        work: function that is called twice; the first call warms up.
        device: ``cpu`` or ``cuda``.

    Returns:
        MB (10^6 bytes); None where that mark cannot be reset (elsewhere than on Linux).
    """
    work()
    gc.collect()

    if device == "cuda":
        cuda = importlib.import_module("torch").cuda
        cuda.synchronize()
        cuda.reset_peak_memory_stats()
        # The allocator's count, not the driver's: it keeps freed blocks for later.
        before = cuda.memory_allocated()
        work()
        cuda.synchronize()
        return (cuda.max_memory_allocated() - before) / 1e6

    if not _reset_high_water_mark():
        return None

    before = _memory_status("VmRSS")
    kept = work()
    peak = _memory_status("VmHWM")
    del kept  # not earlier: the result belongs to the peak
    return max(0.0, peak - before)


def _reset_high_water_mark() -> bool:
    # Elsewhere than in glibc freed memory stays resident, and the peak is a little too low.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory_status(key: str) -> float:
    """Read an entry of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024 / 1e6
    raise KeyError(key)


def describe_operators() -> list[tuple[str, str]]:
    """Say for each operator and device whether a compiled kernel or the PyTorch reference runs."""
    if not has_module("torch"):
        return [("operators", "unknown without torch")]

    torch = importlib.import_module("torch")
    # Loaded before ours: its operators win, and the report must show what a user gets.
    own_build = has_module("detectron2._C")
    if own_build:
        importlib.import_module("detectron2._C")
    try:
        importlib.import_module("rsd2.ops")
    except ImportError as error:
        return [("operators", f"rsd2.ops cannot be imported: {error}")]

    extension = importlib.import_module("rsd2.ops.extension")
    lines, slow = [("rsd2 kernels", extension.build_info())], {}
    for name, operator in OPERATORS.items():
        compiled = {device: extension.is_compiled(operator, device) for device in ("CPU", "CUDA")}
        parts = (f"{d}: {'compiled' if c else 'PyTorch reference'}" for d, c in compiled.items())
        lines.append((f"rsd2 {name}", ", ".join(parts)))
        slow[name] = not compiled["CUDA" if torch.cuda.is_available() else "CPU"]

    present = [name for name in DETECTRON2_OPERATORS if hasattr(torch.ops.detectron2, name)]
    if own_build:
        origin = "Detectron2's own extension"
    elif len(present) == len(DETECTRON2_OPERATORS):
        origin = "rsd2's, registered under Detectron2's names"
    else:
        origin = f"incomplete: {', '.join(present)}" if present else "absent"

    slow_names = [name for name, is_slow in slow.items() if is_slow]
    return [*lines, ("torch.ops.detectron2", origin), ("note", speed_note(slow_names))]


def speed_note(slow: list[str]) -> str:
    """Say in one sentence which operators are slower than they could be.

    Args:
        slow: names of the operators that have no kernel for the device that models run on.
    """
    if not slow:
        return "every operator is compiled for the device that models run on."
    return (
        f"{', '.join(slow)} run as plain PyTorch: the results are the same, but they are slower "
        f"and need more memory than compiled kernels. {BUILD_HINT}"
    )


def collect() -> list[tuple[str, str]]:
    """Gather the report.

    Returns:
        (name, description) for each line, in the order of printing.
    """
    rsd2 = importlib.import_module("rsd2")
    lines = [
        ("rsd2", f"{rsd2.__version__}; {package_folder('rsd2')}"),
        ("python", f"{platform.python_version()}; {sys.executable}"),
        ("platform", platform.platform()),
        *describe_devices(),
        ("detectron2", describe_detectron2()),
    ]

    for name, distributions in PACKAGES.items():
        lines.append((name, distribution_version(*distributions) or "absent"))

    compiler = next(filter(None, (first_line_of(c, "--version") for c in ("c++", "g++"))), None)
    lines.append(("c++ compiler", compiler or "not found (not needed)"))
    nvcc = first_line_of("nvcc", "--version", containing="release")
    lines.append(("nvcc", nvcc or "not found (not needed)"))
    return [*lines, *describe_operators()]


def main() -> None:
    """Print the report, one aligned line each."""
    lines = collect()
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}")


if __name__ == "__main__":
    main()
