"""Install Detectron2 into the Python that runs this script.

Detectron2 is on no package index and its own build needs a compiler. rsd2 needs its Python part
only. Three cases, in this order:

1. ``import detectron2`` works: it is left alone, whoever put it there.
2. ``--source carried`` (default): the Python part of Detectron2 0.6 as the wheel ``LabGym`` carries
   it (Apache-2.0). That wheel is downloaded, its hash is checked, its folder ``LabGym/detectron2``
   is taken, the package gets its own name back, and the result is installed by pip as an ordinary
   distribution ``detectron2``. Nothing else of that wheel (GPL-3.0) is installed or imported.
3. ``--source git``: the upstream repository at a fixed tag, compiled. Needs git, network access to
   it, a C++ compiler, and nvcc for its CUDA kernels; takes minutes. rsd2's own tests use case 2.

Examples:
    rsd2 install-detectron2
    rsd2 install-detectron2 --wheel labgym-3.1.2-py3-none-any.whl   # no network
    rsd2 install-detectron2 --source git

From a checkout, ``python tools/install_detectron2.py`` does the same before rsd2 is installed. This
module is the only place that knows how Detectron2 gets here.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

CARRIER = "LabGym==3.1.2"
CARRIER_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
CARRIED_FOLDER = "LabGym/detectron2/"
GIT_URL = "https://github.com/facebookresearch/detectron2.git"
GIT_REF = "v0.6"
LOCAL_VERSION = "python"  # 0.6+python: the Python part of 0.6, without the compiled extension
VERSION = f"0.6+{LOCAL_VERSION}"
CHECKOUT_LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"

METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: The Python part of Detectron2 0.6, without its compiled extension
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
License-File: NOTICE
Classifier: License :: OSI Approved :: Apache Software License
Requires-Python: >=3.7
Requires-Dist: torch
Requires-Dist: torchvision
Requires-Dist: numpy
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore<0.1.6,>=0.1.5
Requires-Dist: iopath<0.1.11,>=0.1.7
Requires-Dist: omegaconf<2.4,>=2.1
Requires-Dist: hydra-core>=1.1
Requires-Dist: black
Requires-Dist: packaging
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: rsd2 install-detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""

NOTICE = """\
Detectron2, Copyright (c) Facebook, Inc. and its affiliates. Apache License 2.0, see LICENSE.
Home: https://github.com/facebookresearch/detectron2

These are the Python files of Detectron2 0.6, without its compiled extension, as found in the folder
{folder} of the wheel {carrier}.
The command install-detectron2 of rsd2 changed the files named below, by one replacement:
the module path "LabGym.detectron2" became "detectron2".

{changed}
"""

_PROBE = """
import importlib.util, sys
spec = importlib.util.find_spec("detectron2")
if spec is None or spec.origin is None:
    sys.exit(3)
import detectron2
print(detectron2.__file__)
"""
_PROBE_ABSENT = 3


class InstallError(RuntimeError):
    """Detectron2 could not be installed; the message says why and what to do."""


def probe_detectron2() -> tuple[str, str]:
    """Try ``import detectron2`` in a fresh interpreter, away from the working folder.

    Returns:
        ("works", path of its ``__init__.py``), ("absent", "") or ("broken", the error's last line).
    """
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE], cwd=folder, capture_output=True, text=True
        )
    if result.returncode == 0:
        return "works", result.stdout.strip().splitlines()[-1]
    if result.returncode == _PROBE_ABSENT:
        return "absent", ""
    return "broken", (result.stderr.strip() or "no message").splitlines()[-1]


def installing_marker() -> Path:
    """Path of the file that exists while an installation runs, so that a broken-off one is seen."""
    return Path(sysconfig.get_path("purelib")) / "detectron2.installing"


def is_ours() -> bool:
    """Tell whether the installed distribution ``detectron2`` is one that this script built."""
    pattern = f"detectron2-*+{LOCAL_VERSION}.dist-info"
    return any(Path(sysconfig.get_path("purelib")).glob(pattern))


def run_pip(*arguments: str) -> None:
    """Run pip of this Python.

    Raises:
        InstallError: pip failed; its own output has been shown.
    """
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise InstallError(
            f"pip ended with status {error.returncode} (its message is above): "
            f"{' '.join(map(str, command))}"
        ) from error


def download_carrier(folder: Path) -> Path:
    """Download the wheel that carries Detectron2's Python files.

    Args:
        folder: existing folder that receives the wheel.

    Returns:
        Path of the wheel.

    Raises:
        InstallError: pip cannot get it.
    """
    try:
        run_pip(
            "download", "-q", "--no-deps", "--ignore-requires-python", "--only-binary=:all:",
            "--dest", str(folder), CARRIER,
        )  # fmt: skip
    except InstallError as error:
        raise InstallError(
            f"{error}\nWithout network, fetch the wheel of {CARRIER} elsewhere and name it: "
            "rsd2 install-detectron2 --wheel FILE"
        ) from error
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InstallError(f"expected one wheel of {CARRIER} in {folder}, found {len(wheels)}")
    return wheels[0]


def check_hash(path: Path, expected: str = CARRIER_SHA256) -> None:
    """Refuse a file that is not, byte for byte, the one this script was written for.

    Args:
        path: file to check.
        expected: SHA-256 in hexadecimal.

    Raises:
        InstallError: the file is missing or its hash differs.
    """
    if not path.is_file():
        raise InstallError(f"no such file: {path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InstallError(
            f"{path.name} has sha256 {found}, expected {expected}: the file is damaged or is not "
            f"the wheel of {CARRIER}; nothing was installed. Download it again."
        )


def restore_package_name(text: str) -> str:
    """Turn the carrier's module path back into Detectron2's own, in code and in strings.

    Args:
        text: content of a source file.

    Returns:
        The text with ``LabGym.detectron2`` (also ``LabGym/detectron2``) replaced by ``detectron2``.
    """
    return re.sub(r"\bLabGym[./]detectron2\b", "detectron2", text)


def read_carried_package(wheel: Path) -> tuple[dict[str, bytes], list[str]]:
    """Take Detectron2's folder out of the carrier wheel, under its own name.

    Args:
        wheel: path of the carrier wheel.

    Returns:
        (content of each file by its path from ``detectron2/`` on; changed paths, sorted).

    Raises:
        InstallError: not a wheel, no such folder in it, or a file still names the carrier.
    """
    files, changed = {}, []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.startswith(CARRIED_FOLDER) or name.endswith("/"):
                    continue
                relative = "detectron2/" + name.removeprefix(CARRIED_FOLDER)
                if ".." in relative.split("/"):
                    raise InstallError(f"{wheel.name} holds an unsafe path: {name}")
                original = archive.read(name).decode("utf-8")
                text = restore_package_name(original)
                if "LabGym" in text:
                    raise InstallError(f"{name} still names its carrier after the replacement")
                if text != original:
                    changed.append(relative)
                files[relative] = text.encode("utf-8")
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InstallError(f"cannot read {wheel}: {error}") from error
    if "detectron2/__init__.py" not in files:
        raise InstallError(f"{wheel.name} has no folder {CARRIED_FOLDER}")
    return files, sorted(changed)


def apache_license() -> str:
    """Return the text of the Apache License 2.0, which rsd2 and Detectron2 share.

    Raises:
        InstallError: rsd2 was installed without its licence.
    """
    if CHECKOUT_LICENSE.is_file():
        return CHECKOUT_LICENSE.read_text(encoding="utf-8")

    # In a wheel it lies among the metadata, where a new pip and an old one disagree on the folder.
    for name in ("licenses/LICENSE", "LICENSE"):
        if (text := metadata.distribution("rsd2").read_text(name)) is not None:
            return text
    raise InstallError("rsd2 is installed without its LICENSE; install it again")


def record_line(name: str, content: bytes) -> str:
    """Give the line of a wheel's RECORD for one file: path, SHA-256 in base64, size."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def build_wheel(files: dict[str, bytes], changed: list[str], folder: Path) -> Path:
    """Write an ordinary wheel of the package with METADATA, RECORD and the licence.

    Args:
        files: content by path, from :func:`read_carried_package`.
        changed: paths to name in the NOTICE.
        folder: existing folder that receives the wheel.

    Returns:
        Path of the wheel.
    """
    info = f"detectron2-{VERSION}.dist-info"
    notice = NOTICE.format(folder=CARRIED_FOLDER, carrier=CARRIER, changed="\n".join(changed))
    contents = {
        **files,
        f"{info}/METADATA": METADATA.encode(),
        f"{info}/WHEEL": WHEEL.encode(),
        f"{info}/top_level.txt": b"detectron2\n",
        f"{info}/licenses/LICENSE": apache_license().encode(),
        f"{info}/licenses/NOTICE": notice.encode(),
    }
    record = [record_line(name, content) for name, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def install(*arguments: str) -> None:
    """Run ``pip install --no-deps`` so that a run broken off half-way is noticed by the next one.

    Args:
        arguments: further arguments, among them what to install.

    Raises:
        InstallError: pip failed or this Python's package folder cannot be written.
    """
    marker = installing_marker()
    try:
        marker.touch()
    except OSError as error:
        raise InstallError(
            f"cannot write to {marker.parent} ({error.strerror}); use a virtual environment "
            "(python -m venv makes one) or free some disk space"
        ) from error
    run_pip("install", "-q", "--no-deps", "--force-reinstall", *arguments)
    marker.unlink()


def install_carried(wheel: Path | None) -> None:
    """Install the Python part that the carrier wheel holds.

    Args:
        wheel: the carrier wheel if it is already here; else it is downloaded.

    Raises:
        InstallError: it cannot be had, is not the expected file, or pip fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        carrier = wheel or download_carrier(Path(folder))
        check_hash(carrier)
        files, changed = read_carried_package(carrier)
        built = build_wheel(files, changed, Path(tempfile.mkdtemp(dir=folder)))
        # By name, not by path: pip would record the path of the temporary wheel as its home.
        install("--no-index", "--find-links", str(built.parent), f"detectron2=={VERSION}")


def install_from_git(ref: str) -> None:
    """Compile and install upstream's repository; its dependencies must be installed already.

    Args:
        ref: tag or commit.

    Raises:
        InstallError: git or a C++ compiler is missing, or pip fails.
    """
    missing = [name for name in ("git",) if shutil.which(name) is None]
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        missing.append("a C++ compiler")
    if missing:
        raise InstallError(
            f"--source git needs {' and '.join(missing)}, not found on PATH; "
            "leave the option out to install the Python part, which needs neither"
        )
    install("--no-build-isolation", f"detectron2 @ git+{GIT_URL}@{ref}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=("carried", "git"), default="carried")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {CARRIER}, already downloaded")
    parser.add_argument("--git-ref", default=GIT_REF, help="tag or commit (default: %(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Do what the module docstring says.

    Args:
        arguments: from :func:`parse_arguments`.

    Returns:
        One sentence that says what was done.

    Raises:
        InstallError: Detectron2 does not work afterwards.
    """
    state, detail = probe_detectron2()
    unfinished = installing_marker().exists()
    if state == "works" and not unfinished:
        return f"detectron2 works and is left alone: {detail}"
    if state == "broken" and not unfinished and not is_ours():
        raise InstallError(
            f"a detectron2 that this script did not install is here but fails: {detail}\n"
            "Repair it, or remove it (pip uninstall detectron2) and run this script again."
        )
    if arguments.source == "git":
        install_from_git(arguments.git_ref)
    else:
        install_carried(arguments.wheel)
    state, detail = probe_detectron2()
    if state != "works":
        raise InstallError(
            f"detectron2 is installed but cannot be imported ({state}: {detail}); "
            "install what it needs first: pip install rsd2, or in a checkout requirements.txt; "
            "tools/setup_env.sh does both"
        )
    return f"detectron2 installed ({arguments.source}): {detail}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    try:
        print(run(parse_arguments(argv)))
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
