"""Packaging of rsd2, and the build of its compiled operators.

The kernels of rsd2/ops/csrc become rsd2/ops/_C.abi3.so where torch 2.10 or later can be imported
and a C++ compiler is there; those for CUDA are added where nvcc, a torch built for CUDA and a GPU
are there too. Without them every operator runs as plain PyTorch. A build that fails is an error.

Environment variables:
    RSD2_BUILD_OPS: 0 installs the Python part only.
    FORCE_CUDA: 1 compiles for CUDA without a GPU, for the kinds in TORCH_CUDA_ARCH_LIST, like
        "8.0;9.0". The kernels need 7.0 at least.
    MAX_JOBS: how many compilers run at a time (torch's own variable).
    CXX: the compiler, c++ by default.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Read the version from rsd2/__init__.py, its only home."""
    text = (ROOT / "rsd2" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def long_description() -> str:
    """Read README.md if this copy has it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


def project_folders() -> dict[str, str]:
    """Map ``rsd2.projects.<name>`` to ``projects/<Name>/<name>`` for each project there is."""
    folders = {}
    for init in sorted((ROOT / "projects").glob("*/*/__init__.py")):
        package = init.parent
        name = f"rsd2.projects.{package.name}"
        relative = package.relative_to(ROOT).as_posix()
        folders[name] = relative
        for child in find_packages(str(package)):
            folders[f"{name}.{child}"] = f"{relative}/{child.replace('.', '/')}"
        if (package.parent / "configs").is_dir():
            folders[f"{name}.configs"] = (package.parent / "configs").relative_to(ROOT).as_posix()
    return folders


# Contraction would make a rounding of a rotated IoU depend on the machine; see rotated_geometry.h.
CXX_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS += ["-fvisibility=hidden", "-Wall"]
NVCC_FLAGS = ["-O3"]
# The kernels for the CPU use only what torch 2.10 has in its stable C++ interface, so that one
# build loads into it and every later release. Those for CUDA use all of ATen, without a promise.
OLDEST_TORCH = (2, 10)
CXX_FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]


def say(text: str) -> None:
    """Print a line of the build's log; pip shows it with -v."""
    print(f"rsd2: {text}", file=sys.stderr, flush=True)


def compiler() -> str | None:
    """Path of the C++ compiler that torch will call; None if there is none."""
    return shutil.which((os.environ.get("CXX") or "c++").split()[0])


def cuda_toolkit() -> str | None:
    """Folder of the CUDA toolkit; None if there is none.

    That of CUDA_HOME or CUDA_PATH, else that of the nvcc on PATH, which may be a script: what nvcc
    would run names the folder that it takes everything from.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    if named or nvcc is None:
        return named or None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cu"
        source.write_text("")
        log = subprocess.run([nvcc, "--dryrun", str(source)], capture_output=True, text=True)
    found = re.search(r"^#\$ TOP=(.+)$", log.stderr + log.stdout, re.MULTILINE)
    return os.path.normpath(found.group(1).strip()) if found else str(Path(nvcc).parents[1])


def wants_cuda(torch, toolkit: str | None) -> bool:
    """Tell whether the CUDA kernels are compiled, and say why if they are not."""
    is_asked = os.environ.get("FORCE_CUDA") == "1"
    if torch.version.cuda is None or toolkit is None:
        if is_asked:
            sys.exit("rsd2: FORCE_CUDA=1 needs nvcc on PATH and a torch built for CUDA")
        say("no CUDA kernels: that needs nvcc and a torch built for CUDA")
        return False
    if torch.cuda.is_available():
        return True
    if is_asked:
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            sys.exit("rsd2: FORCE_CUDA=1 without a GPU needs its kind, as TORCH_CUDA_ARCH_LIST=9.0")
        return True
    say("no CUDA kernels: no GPU is here; FORCE_CUDA=1 compiles them nevertheless")
    return False


def extension() -> dict:
    """Arguments of ``setup`` that build the operators; empty if they are not to be built."""
    if os.environ.get("RSD2_BUILD_OPS") == "0":
        say("RSD2_BUILD_OPS=0: the operators are not compiled")
        return {}
    if os.name == "nt":
        say("the operators are compiled on Linux and macOS only; they run as plain PyTorch")
        return {}
    toolkit = cuda_toolkit()
    if toolkit is not None:
        os.environ["CUDA_HOME"] = toolkit  # torch reads it when cpp_extension is imported
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        say(f"torch cannot be imported ({error}), so the operators are not compiled; install")
        say("torch first and use pip's --no-build-isolation to get them compiled")
        return {}
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        say(f"torch {torch.__version__} lacks the C++ interface of the operators (2.10 and later)")
        return {}
    if compiler() is None:
        say("no C++ compiler (CXX or c++): the operators run as plain PyTorch")
        return {}
    for variable, default in (("CC", "cc"), ("CXX", "c++")):
        # The compiler that built this Python may be absent here.
        used = (sysconfig.get_config_var(variable) or "").split()
        if not (used and shutil.which(used[0])):
            os.environ.setdefault(variable, default)
    sources = sorted((ROOT / "rsd2" / "ops" / "csrc").glob("*.cpp"))
    sources += sorted((ROOT / "rsd2" / "ops" / "csrc" / "cpu").glob("*.cpp"))
    kind, flags = cpp_extension.CppExtension, {"cxx": [*CXX_FLAGS]}
    if wants_cuda(torch, cpp_extension.CUDA_HOME):
        sources += sorted((ROOT / "rsd2" / "ops" / "csrc" / "cuda").glob("*.cu"))
        kind, flags["nvcc"] = cpp_extension.CUDAExtension, NVCC_FLAGS
    flags["cxx"] += [f'-DRSD2_VERSION="{version()}"']
    module = kind(
        "rsd2.ops._C",
        [path.relative_to(ROOT).as_posix() for path in sources],
        include_dirs=[str(ROOT / "rsd2" / "ops" / "csrc")],
        extra_compile_args=flags,
        py_limited_api=True,
    )
    return {
        "ext_modules": [module],
        "cmdclass": {"build_ext": cpp_extension.BuildExtension},
        # It calls nothing of Python, so that one build serves every Python.
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


PROJECTS = project_folders()
CONFIGS = ["rsd2.configs", *(name for name in PROJECTS if name.endswith(".configs"))]
# What Detectron2's Python part imports; rsd2 install-detectron2 installs it without these.
DETECTRON2_NEEDS = [
    "fvcore>=0.1.5",
    "iopath<0.1.11",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "yacs>=0.1.8",
    "cloudpickle",
    "tabulate",
    "termcolor",
    "packaging",
    "Pillow",
    "black",
]

setup(
    name="rsd2",
    version=version(),
    description="Object detection in overhead imagery on Detectron2",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The rsd2 authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["object detection", "remote sensing", "oriented boxes", "satellite", "detectron2"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Scientific/Engineering :: GIS",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["rsd2", "rsd2.*"]), "rsd2.configs", *PROJECTS],
    package_dir={"rsd2.configs": "configs", **PROJECTS},
    package_data={
        "rsd2": ["py.typed"],
        **{name: ["*.py", "*.md", "**/*.py", "**/*.md"] for name in CONFIGS},
    },
    entry_points={"console_scripts": ["rsd2 = rsd2.commands.main:main"]},
    include_package_data=False,
    zip_safe=False,
    **extension(),
    # Detectron2 is on no package index: rsd2 install-detectron2 brings it.
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=2",
        "scipy",
        "shapely>=2",
        # The build without windows, which needs no system libGL. Whoever has the other OpenCV
        # installs rsd2 with --no-deps: the two must not be installed together.
        "opencv-python-headless>=4.5",
        "pycocotools>=2.0.2",
        "faster-coco-eval",
        "matplotlib",
        "tensorboard",
        "tqdm",
        "pyyaml",
        "safetensors",
        *DETECTRON2_NEEDS,
    ],
    extras_require={
        "pretrain": ["scikit-learn", "scikit-image"],
        "sam": ["segment-anything"],
        "timm": ["timm>=1.0.20"],
        "geo": ["rasterio>=1.4", "pyogrio>=0.10", "pyproj"],
        "trackers": ["mlflow-skinny", "wandb"],
        "fleet": ["ray>=2.40"],
        "export": ["onnx", "onnxscript", "onnxruntime"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "dev": [
            "build",
            "twine",
            "pytest",
            "pytest-xdist",
            "pytest-benchmark",
            "hypothesis",
            "ruff",
            "codespell",
            "mypy",
            "clang-format",
            "pre-commit",
            "pre-commit-hooks",
        ],
    },
)
