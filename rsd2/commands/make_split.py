"""Write lists of images for low-data experiments: seeded, nested, each with its hash.

    python tools/make_split.py --dataset dior_r_trainval --fractions 0.1 0.25 0.5 --output splits
    python tools/lazyconfig_train_net.py --config-file CONFIG.py \
        dataloader.train.dataset.split_file=splits/dior_r_trainval_seed0_10.txt

The list of 10 % is part of that of 25 %. The same dataset, seed and fraction give the same list on
every machine; `dataloader.train.dataset.fraction=0.1` makes the same choice without a file.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.splits import choose_share, select_images, unit_id, write_split
from rsd2.io.files import make_output_folder
from rsd2.io.program import print_error


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", nargs="+", required=True, metavar="NAME", help="registered datasets")
    add("--fractions", type=float, nargs="+", default=[0.1, 0.25, 0.5], help="shares in (0, 1]")
    add("--seed", type=int, default=0, help="seed of the choice (default 0)")
    add("--output", type=Path, required=True, metavar="DIR", help="gets a list for each fraction")
    return parser


def describe(records: Sequence[dict], classes: Sequence[str]) -> str:
    """Say how many objects of each class some images show, and which classes they lack.

    Args:
        records: dataset dicts.
        classes: names of the classes.

    Returns:
        one line.
    """
    counts = Counter(a["category_id"] for r in records for a in r.get("annotations", []))
    # A class without any object cannot be learned from the share, so its name is printed.
    absent = [name for index, name in enumerate(classes) if not counts[index]]
    text = f"{sum(counts.values())} objects"
    return f"{text}; NO OBJECT of {', '.join(absent)}" if absent else f"{text} of every class"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        0 if done, 2 if an argument or a dataset cannot be used.
    """
    args = get_parser().parse_args(argv)
    register_builtin()
    known = DatasetCatalog.list()
    try:
        # Detectron2's own error would not list the known names.
        unknown = [name for name in args.dataset if name not in known]
        if unknown:
            raise ValueError(f"no dataset {unknown[0]!r}; known are {', '.join(sorted(known))}")
        records = [record for name in args.dataset for record in DatasetCatalog.get(name)]
        classes = MetadataCatalog.get(args.dataset[0]).thing_classes
        ids = {unit_id(record) for record in records}
        make_output_folder(args.output)
        for fraction in sorted(args.fractions):
            chosen = choose_share(ids, fraction, args.seed)
            path = args.output / f"{'+'.join(args.dataset)}_seed{args.seed}_{fraction * 100:g}.txt"
            note = f"{fraction:.6g} of {len(ids)} images of {', '.join(args.dataset)}"
            digest = write_split(path, chosen, [f"{note}, seed {args.seed}"])
            # Selected by the function that training uses, to count its dicts.
            own = select_images(records, chosen, str(path))
            print(f"{path}: {len(chosen)} of {len(ids)} images, {len(own)} dicts, sha256 {digest}")
            print(f"  {describe(own, classes)}")
    except (ValueError, OSError) as error:
        print_error(error)
        return 2

    return 0
