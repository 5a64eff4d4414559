"""Reading the tensors of other people's files without running anything that they carry."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

_NUMERIC = tuple(np.dtype(code) for code in "?bBhHiIlLqQefd")


class _Ignored:
    """Stands for bookkeeping objects of other frameworks; holds nothing, does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Loggers pickle bound methods, which read as calls of getattr: these too become empty objects.
_IGNORED_GLOBALS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "builtins.getattr",
    "__builtin__.getattr",
)
_NUMPY_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
# What broken bytes make the two unpicklers raise.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    AttributeError,
    LookupError,
    TypeError,
    ImportError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    struct.error,
)


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _NUMPY_GLOBALS:
            raise pickle.UnpicklingError(f"the file wants to run {module}.{name}, which is refused")
        if module.endswith("multiarray"):
            return getattr(_multiarray(), name)
        return super().find_class(module, name)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a third-party file without running any of its code.

    Args:
        path: ``.pth``/``.pt``/``.bin`` written by torch.save (state dict, or a checkpoint that
            holds one under ``state_dict`` or ``model``, or several under other names), or
            Detectron2's ``.pkl`` of numpy arrays.

    Returns:
        Tensors by name, a leading ``module.`` removed, behind the name of their state dict if
        there are several; everything else of the file is ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not readable as data alone, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".pkl":
            content = _NumpyUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        else:
            allowed = [(_Ignored, name) for name in _IGNORED_GLOBALS] + _numpy_safe_globals()
            with torch.serialization.safe_globals(allowed):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # PyTorch's own advice, to read the file without the protection, is not passed on
        text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        reason = (text.strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read as plain tensors ({reason}); it is damaged, or holds objects "
            "other than tensors and numbers: re-save it as torch.save(model.state_dict(), ...)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    tensors = _tensors(content)
    if not tensors:  # several state dicts in one file
        for part, state in content.items():
            if isinstance(state, Mapping):
                tensors |= {f"{part}.{key}": value for key, value in _tensors(state).items()}
    if not tensors:
        raise ValueError(f"{path} holds no tensors; its keys are {list(content)[:10]}")
    return tensors


def _tensors(state: Mapping) -> dict[str, torch.Tensor]:
    """The tensors and arrays of numbers of a state dict."""
    return {
        str(key).removeprefix("module."): torch.as_tensor(value)
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
        or (isinstance(value, np.ndarray | np.generic) and value.dtype in _NUMERIC)
    }


def _multiarray() -> ModuleType:
    return np._core.multiarray if hasattr(np, "_core") else np.core.multiarray


def _numpy_safe_globals() -> list[object]:
    dtypes = {type(dtype) for dtype in _NUMERIC}
    functions = {name: getattr(_multiarray(), name) for name in ("scalar", "_reconstruct")}
    aliases = [
        (function, f"numpy.{package}.multiarray.{name}")
        for name, function in functions.items()
        for package in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, *dtypes, *aliases]
