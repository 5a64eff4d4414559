"""The CUDA kernels, on a GPU where there is one and on the host everywhere.

On the host, cuda_on_host.h runs the text of ``csrc/cuda``, host code and kernels, with fibers for
threads. So a test that takes ``kernels`` runs what a GPU would; speed, and the order in which a
GPU's memory is seen, stay untested without one.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from rsd2.ops.extension import SCHEMAS, is_compiled

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "rsd2" / "ops" / "csrc"
# Relative to the largest number of a result: some roundings of the type and of the sums.
TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


class Kernels:
    """The operators of one library, for tensors of the CPU.

    Args:
        ops: namespace of ``torch.ops``.
        device: where the tensors go for a call.
    """

    def __init__(self, ops, device: str) -> None:
        self.ops, self.device = ops, device

    def __call__(self, name: str, *arguments):
        """Result of an operator, back on the CPU."""
        result = getattr(self.ops, name)(*map(self.there, arguments))
        if isinstance(result, torch.Tensor):
            return result.cpu()
        return tuple(tensor.cpu() for tensor in result)

    def there(self, value):
        """A tensor on the device of the kernels, laid out as it is; anything else as it is."""
        if not isinstance(value, torch.Tensor) or self.device == "cpu":
            return value
        whole = value.as_strided((value.untyped_storage().nbytes() // value.itemsize,), (1,), 0)
        layout = (value.shape, value.stride(), value.storage_offset())
        return whole.to(self.device).as_strided(*layout)

    @staticmethod
    def assert_near(result: torch.Tensor, expected: torch.Tensor) -> None:
        """Equal shapes and dtypes, and equal numbers but for roundings."""
        assert result.shape == expected.shape and result.dtype == expected.dtype
        if result.numel():
            largest = expected.double().abs().max().clamp(min=1e-30).item()
            allowed = TOLERANCES[expected.dtype] * largest
            torch.testing.assert_close(result.double(), expected.double(), rtol=0, atol=allowed)


def build(folder: Path) -> Path:
    """Compile csrc/cuda for the host, once for all processes that share the folder."""
    library = folder / "cuda_on_host.so"
    with open(folder / "cuda_on_host.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        copy = folder / "csrc"
        shutil.copytree(CSRC, copy, dirs_exist_ok=True)
        shutil.copy(HERE / "cuda_on_host.h", copy / "cuda" / "launch.h")
        torch_folder = Path(torch.__file__).parent
        includes = [torch_folder / "include", torch_folder / "include/torch/csrc/api/include"]
        command = [
            shutil.which(os.environ.get("CXX", "c++")),
            "-std=c++20",
            "-O1",
            "-g0",
            "-shared",
        ]
        command += ["-fPIC", "-ffp-contract=off", "-Wall", "-Werror", f"-I{copy}"]
        # A GPU refuses vectors that are not aligned; so does this, by a signal.
        command += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
        command += [f"-isystem{path}" for path in includes]
        command += [str(HERE / "cuda_on_host.cpp"), "-o", str(library.with_suffix(".part"))]
        command += [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[:4000]
        os.replace(library.with_suffix(".part"), library)
    return library


@pytest.fixture(scope="session")
def on_host(tmp_path_factory: pytest.TempPathFactory):
    """Operators ``torch.ops.rsd2_on_host`` for CPU tensors; skips without a compiler for them."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler (CXX or c++), which running CUDA kernels on the host needs")
    if not Path("/usr/include/ucontext.h").exists():
        pytest.skip("this system has no ucontext.h, which running CUDA kernels on the host needs")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    definitions = torch.library.Library("rsd2_on_host", "DEF")
    for schema in SCHEMAS:
        definitions.define(schema)
    torch.ops.load_library(str(build(shared)))
    torch.ops.rsd2_on_host.seed(0)
    yield torch.ops.rsd2_on_host
    del definitions  # which goes when nobody holds it


@pytest.fixture(params=["on_host", pytest.param("cuda", marks=pytest.mark.cuda)])
def kernels(request):
    """The operators and the device of their tensors."""
    if request.param == "on_host":
        return Kernels(request.getfixturevalue("on_host"), "cpu")
    if not is_compiled("box_iou_rotated", "CUDA"):
        pytest.skip("rsd2 was built without CUDA kernels (FORCE_CUDA=1 builds them)")
    return Kernels(torch.ops.rsd2, "cuda")


@pytest.fixture
def deterministic():
    """Torch is asked for deterministic algorithms until the end of the test."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
