"""Reader of weight files: it accepts tensors and plain values, and runs no code of a file."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError

_NUMERIC = tuple(np.dtype(code) for code in "?bBhHiIlLqQefd")
_WRAPPERS = ("module", "_orig_mod")  # of DistributedDataParallel, of torch.compile
_NOT_TENSORS = (
    "cannot be read as plain tensors: it holds more than tensors and plain values ({}), which "
    "could run any code and which tools/convert_checkpoint.py refuses too; where the file was "
    "written, save the tensors alone: torch.save({{'model': model.state_dict()}}, ...)"
)


class _Ignored:
    """Replaces bookkeeping objects of other frameworks; it holds nothing and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Pickled bound methods of loggers look like calls of getattr; they become empty objects too.
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
# Errors that the two unpicklers raise for broken bytes.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
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
# First bytes of torch.save's files before it wrote archives.
_OLD_TORCH_FILE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# First bytes of files that are often mistaken for weights -> what they are, and what to do.
_OTHER_FILES = {
    b"version https://git-lfs": "is a pointer of git-LFS, not the weights themselves; fetch them "
    "with `git lfs pull`, or download the file from its web page",
    b"\x1f\x8b": "is packed with gzip; unpack it first",
    b"\x89HDF": "is an HDF5 file, as Keras writes them; only files of PyTorch can be read",
    b"7z\xbc\xaf": "is packed with 7-Zip; unpack it first",
    b"Rar!": "is packed with RAR; unpack it first",
}


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        # An allow-list: a pickle may name any function, and loading it would call that.
        if (module, name) not in _NUMPY_GLOBALS:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")

        if module.endswith("multiarray"):
            return getattr(_multiarray(), name)
        return super().find_class(module, name)


def read_weight_file(path: str | Path) -> Any:
    """Read the content of a weight file without running any code in it.

    Args:
        path: path of a file of ``torch.save`` (of any version), a ``.safetensors`` file, or a
            pickle of numpy arrays like Detectron2's ``.pkl``. The content decides, not the suffix.

    Returns:
        Tensors on the CPU, numpy arrays and numbers, and containers of plain values.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is of another kind, incomplete, or holds other objects; the
            message says which, and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")

    with path.open("rb") as stream:
        head = stream.read(512)
    if reason := _reason_to_refuse(path, head):
        raise CheckpointError(f"{path} {reason}")

    try:
        if _is_safetensors(head):
            return _read_safetensors(path)

        # Detectron2's model zoo is in numpy pickles, which torch.load does not read.
        is_pickle = head.startswith(b"\x80") and not head.startswith(_OLD_TORCH_FILE)
        if is_pickle or (path.suffix == ".pkl" and not head.startswith(b"PK")):
            return _NumpyUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()

        # torch's own reader, restricted to tensors and the names that are allowed here.
        allowed: list[Any] = [(_Ignored, name) for name in _IGNORED_GLOBALS] + _numpy_safe_globals()
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} {_true_reason(error, path.stat().st_size)}") from error


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a third-party file without running any of its code.

    Args:
        path: path of a state dict (see :func:`read_weight_file`), or a checkpoint that holds one
            under ``state_dict`` or ``model``, or several under other names.

    Returns:
        Tensors by name, without prefixes of wrappers (see :func:`without_wrappers`), behind
        the name of their state dict if there are several; everything else of the file is ignored.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file cannot be read as data alone, or holds no tensors.
    """
    content = read_weight_file(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")

    tensors = _tensors(content)
    if not tensors:  # several state dicts in one file
        for part, state in content.items():
            if isinstance(state, Mapping):
                tensors |= {f"{part}.{key}": value for key, value in _tensors(state).items()}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; its keys are {list(content)[:10]}")
    return tensors


def tensors_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Hash tensors by their names and bytes, whatever file they came from.

    Args:
        state: tensors by name, in any order.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode("utf-8"))
        value = state[key].detach().cpu().contiguous()
        # By its bytes, because NumPy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def without_wrappers(state: Mapping[str, Any], own: Iterable[str] = ()) -> Mapping[str, Any]:
    """Remove the prefixes from the names that a wrapper of the model added when it was saved.

    ``module.`` of DistributedDataParallel is removed from the beginning, ``_orig_mod.`` of
    ``torch.compile`` from everywhere, because parts of a model can be compiled too.

    Args:
        state: values by name.
        own: names of the model to fill. If they contain such prefixes, the names stay as they are.

    Returns:
        The values by plain name.

    Raises:
        CheckpointError: two names become one.
    """
    if any(key != _plain_name(key) for key in own):
        return state

    plain = {_plain_name(key): value for key, value in state.items()}
    if len(plain) < len(state):
        names = [_plain_name(key) for key in state]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise CheckpointError(
            f"the file holds {twice[0]} twice, with and without a prefix of a wrapper "
            f"({', '.join(_WRAPPERS)}); {len(twice)} such names in all: save one model alone"
        )
    return plain


def as_tensor(value: Any) -> Any:
    """Turn a numpy array or number into a tensor.

    Args:
        value: any object.

    Returns:
        A tensor if the value is numeric, else the value itself.
    """
    is_numeric = isinstance(value, np.ndarray | np.generic) and value.dtype in _NUMERIC
    return torch.as_tensor(value) if is_numeric else value


def _plain_name(key: str) -> str:
    parts = str(key).split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        del parts[0]
    return ".".join(part for part in parts if part != "_orig_mod")


def _tensors(state: Mapping) -> dict[str, torch.Tensor]:
    """Return the tensors and numeric arrays of a state dict, by plain name."""
    values = {key: as_tensor(value) for key, value in state.items()}
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    return dict(without_wrappers(tensors))


def _reason_to_refuse(path: Path, head: bytes) -> str | None:
    """Tell by the first bytes why a file cannot hold weights; None if it may."""
    size = path.stat().st_size
    if not head:
        return "is empty (0 bytes): its download or its saving did not get far; get it again"
    for start, reason in _OTHER_FILES.items():
        if head.startswith(start):
            return reason

    # Servers answer a failed download with a page, which is then saved under the file's name.
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")):
        return (
            "is a web page, not a file of weights: the link led to a page of log-in, consent or "
            "error; open it in a browser and download the file itself"
        )

    # An archive's table of contents is at its end, so an interrupted download lacks it.
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return f"is damaged or incomplete: its end is missing ({size} bytes); get it again"
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "is a TorchScript program, not a state dict; load it with torch.jit.load and save "
                "its state_dict()"
            )
        if not any(name.endswith("/data.pkl") for name in names):
            return f"is a zip archive of {', '.join(names[:3]) or 'nothing'}; unpack it first"
    elif text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        beginning = head.decode("ascii").strip().splitlines()[0][:60]
        return f"is a text that begins with {beginning!r}, not a file of weights"
    return None


def _is_safetensors(head: bytes) -> bool:
    """Tell whether a file begins with the length of a JSON header and that header."""
    # The length has 8 bytes, little-endian; a header below 1 TB leaves the last three zero.
    return len(head) > 9 and head[8:9] == b"{" and head[5:8] == b"\0\0\0"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"{path} is a safetensors file, and the package that reads it is not installed: "
            "pip install safetensors"
        ) from error

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged or incomplete ({path.stat().st_size} bytes: {error}); get it again"
        ) from error


def _true_reason(error: BaseException, size: int) -> str:
    """Explain why a file cannot be read, without PyTorch's advice to turn off its protection."""
    text = str(error)
    if match := re.search(r"GLOBAL (\S+)", text):
        return _NOT_TENSORS.format(match[1].removesuffix("."))
    if "not an allowed global" in text or "Unsupported class" in text or "Trying to " in text:
        return _NOT_TENSORS.format(text.strip().splitlines()[-1].strip())

    text = text.partition("WeightsUnpickler error:")[2] or text
    lines = text.strip().splitlines() or [type(error).__name__]
    return (
        f"cannot be read as plain tensors, it is damaged or incomplete, or not a file of weights "
        f"({size} bytes: {lines[0]}); get it again, or save it again with torch.save"
    )


def _multiarray() -> ModuleType:
    # numpy 2 moved the module and warns if the old name is used.
    package = "numpy._core" if hasattr(np, "_core") else "numpy.core"
    return import_module(f"{package}.multiarray")


def _numpy_safe_globals() -> list[Any]:
    # Only numbers and numeric arrays: an array of objects would also name the classes of its
    # objects, which are refused one by one.
    dtypes = {type(dtype) for dtype in _NUMERIC}
    functions = {name: getattr(_multiarray(), name) for name in ("scalar", "_reconstruct")}
    aliases = [
        (function, f"numpy.{package}.multiarray.{name}")
        for name, function in functions.items()
        for package in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, *dtypes, *aliases]
