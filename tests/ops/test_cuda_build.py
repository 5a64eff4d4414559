"""The CUDA kernels compile, without a warning and without spilling registers.

Compiling takes a minute of every core, so it happens only where it is asked for and nvcc is there:
``RSD2_TEST_NVCC=1 bash tools/test.sh tests/ops/test_cuda_build.py``. Continuous integration asks.
``MAX_JOBS``, two by default, says how many compilers may run at once.
"""

import importlib.util
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import cpp_extension

ARCHITECTURE = ["-gencode=arch=compute_90,code=sm_90"]
# Kernels that may keep a few bytes in local memory: theirs is the rare path of a double's sine.
MAY_USE_STACK = {"describe_regions"}


@pytest.fixture(scope="module")
def packaging(repository: Path):
    """The functions and flags of setup.py, without installing anything."""
    spec = importlib.util.spec_from_file_location("rsd2_setup", repository / "setup.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSD2_BUILD_OPS", "0")
        patch.setattr("setuptools.setup", lambda **arguments: None)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nvcc(packaging) -> Path:
    """The compiler; skips where nobody asks, or it is missing or does not fit torch's CUDA."""
    if os.environ.get("RSD2_TEST_NVCC") != "1":
        pytest.skip("set RSD2_TEST_NVCC=1 to compile the CUDA kernels")
    toolkit = packaging.cuda_toolkit()
    path = Path(toolkit or "") / "bin" / "nvcc"
    if toolkit is None or not path.is_file():
        pytest.skip("no nvcc on PATH and no CUDA_HOME, so the CUDA kernels are not compiled here")
    if torch.version.cuda is None:
        pytest.skip("this torch was built without CUDA and has no headers for it")
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.", version)
    if release is None or release.group(1) != torch.version.cuda.split(".")[0]:
        pytest.skip(f"nvcc is {version.strip()[-60:]!r}, torch has CUDA {torch.version.cuda}")
    return path


def fake_nvcc(folder: Path, text: str) -> None:
    """A script named nvcc that prints a text, as nvcc --dryrun does, to stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "nvcc"
    script.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\n")
    script.chmod(0o755)


class TestToolkit:
    def test_of_a_script_is_where_nvcc_takes_everything_from(
        self, packaging, tmp_path, monkeypatch
    ):
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        fake_nvcc(tmp_path / "bin", "#$ _SPACE_= \n#$ TOP=/some where/cuda/bin/..\n#$ LIB=x")
        assert packaging.cuda_toolkit() == "/some where/cuda"
        fake_nvcc(tmp_path / "bin", "nothing of use")
        assert packaging.cuda_toolkit() == str(tmp_path)
        monkeypatch.setenv("CUDA_HOME", "/named/cuda")
        assert packaging.cuda_toolkit() == "/named/cuda"

    def test_of_nothing(self, packaging, tmp_path, monkeypatch):
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert packaging.cuda_toolkit() is None
        monkeypatch.setenv("FORCE_CUDA", "1")
        with pytest.raises(SystemExit, match="nvcc"):
            packaging.wants_cuda(torch, None)

    def test_without_a_gpu_needs_to_be_told_its_kind(self, packaging, monkeypatch):
        no_gpu = SimpleNamespace(
            version=SimpleNamespace(cuda="13.0"), cuda=SimpleNamespace(is_available=lambda: False)
        )
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        monkeypatch.delenv("FORCE_CUDA", raising=False)
        assert not packaging.wants_cuda(no_gpu, "/cuda")
        monkeypatch.setenv("FORCE_CUDA", "1")
        with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST"):
            packaging.wants_cuda(no_gpu, "/cuda")
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
        assert packaging.wants_cuda(no_gpu, "/cuda")


def test_the_geometry_is_not_contracted(packaging, nvcc: Path, repository: Path, tmp_path: Path):
    source, assembly = tmp_path / "pairs.cu", tmp_path / "pairs.ptx"
    visitor = "rsd2::gpu::FillMatrix<float>"
    source.write_text(
        '#include "cuda/box_iou_rotated.cuh"\n'
        "template __global__ void rsd2::gpu::pair_boxes<double>"
        "(const double*, const double*, int64_t, double*);\n"
        f"template __global__ void rsd2::gpu::visit_all_pairs<float, {visitor}>({visitor});\n"
    )
    flags = [*packaging.NVCC_FLAGS, ARCHITECTURE[0].replace("code=sm", "code=compute")]
    command = [nvcc, *flags, f"-I{repository / 'rsd2' / 'ops' / 'csrc'}"]
    command += ["-std=c++17", "-ptx", source, "-o", assembly]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    text = assembly.read_text()
    assert text.count("mul.rn.f64") > 100 and text.count("mul.rn.f32") > 0
    # ptxas may fuse a product without .rn with an addition. Those left are exact: by a power of two
    # or, of at most 4 quarter turns, by 90.
    exact = r"0d[0-9A-F]{3}0{13}|0d4056800000000000"
    factors = re.findall(r"\bmul\.f\d+\s.*, (\S+);", text)
    assert [factor for factor in factors if not re.fullmatch(exact, factor)] == []
    assert "fma.rn" not in text


def spills(log: str) -> list[str]:
    """Kernels of a log of ptxas that use local memory and must not."""
    found = re.findall(r"properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill", log)
    assert found, log[-2000:]
    return [
        name
        for name, stack, spilled in found
        if int(stack) + int(spilled) > 0 and not any(allowed in name for allowed in MAY_USE_STACK)
    ]


@pytest.mark.slow
def test_all_kernels_compile_cleanly(packaging, nvcc: Path, repository: Path, tmp_path: Path):
    sources = sorted((repository / "rsd2" / "ops" / "csrc" / "cuda").glob("*.cu"))
    assert len(sources) == 4
    flags = [*cpp_extension.COMMON_NVCC_FLAGS, *packaging.NVCC_FLAGS, *ARCHITECTURE, "-std=c++20"]
    flags += ["-Xcompiler", "-fPIC,-Wall", "-Werror", "all-warnings", "-Xptxas", "-v"]
    flags += [f"-I{repository / 'rsd2' / 'ops' / 'csrc'}"]
    for folder in cpp_extension.include_paths("cpu"):
        flags += ["-isystem", folder]

    def compile_one(source: Path) -> subprocess.CompletedProcess:
        command = [nvcc, *flags, "-c", source, "-o", tmp_path / f"{source.stem}.o"]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", "2"))) as pool:
        results = list(pool.map(compile_one, sources))
    for source, result in zip(sources, results):
        assert result.returncode == 0, f"{source.name}:\n{result.stderr[-4000:]}"
        assert (tmp_path / f"{source.stem}.o").stat().st_size > 0
        assert spills(result.stderr) == [], source.name
