"""Packaging of rsd2. Nothing is compiled: the operators of this release are plain PyTorch."""

import re
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


PROJECTS = project_folders()
CONFIGS = ["rsd2.configs", *(name for name in PROJECTS if name.endswith(".configs"))]
# What Detectron2's Python part imports; tools/install_detectron2.py installs it without these.
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
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["rsd2", "rsd2.*"]), "rsd2.configs", *PROJECTS],
    package_dir={"rsd2.configs": "configs", **PROJECTS},
    package_data={name: ["*.py", "*.md", "**/*.py", "**/*.md"] for name in CONFIGS},
    include_package_data=False,
    zip_safe=False,
    # Detectron2 is on no package index: tools/install_detectron2.py brings it.
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
        *DETECTRON2_NEEDS,
    ],
    extras_require={
        "pretrain": ["scikit-learn", "scikit-image"],
        "sam": ["segment-anything"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "pytest-benchmark",
            "hypothesis",
            "ruff",
            "codespell",
            "clang-format",
            "pre-commit",
            "pre-commit-hooks",
        ],
    },
)
