"""Score result files without a model, by the protocol of a benchmark.

    python tools/score.py --protocol dota --dataset dota_v1.0_val --results Task1.zip
    python tools/score.py --protocol tiny --dataset tiny_person_test --results results.json \\
        --output output/scores
    python tools/score.py --protocol video --dataset rscardata_test --results results/model_mat \\
        protocols=[micml,distance5]
    python tools/score.py --protocol coco --annotations instances_val.json --images val \\
        --results results.json

| protocol | what is scored | result files |
|---|---|---|
| dota | rotated boxes, DOTA's Task 1 | the zip of a submission, or the folder of its text files |
| soda | rotated boxes, SODA-A | the same |
| coco, tiny, aitod | upright boxes: COCO, TinyPerson, AI-TOD | a JSON list, COCO's result format |
| video | moving objects in satellite videos | the same, or a folder with <video>/<frame>.mat |
| dronecrowd | centres of heads, DroneCrowd | the same JSON list |

The labels are those of a registered data set (--dataset; $DETECTRON2_DATASETS names its folder) or
of --annotations: for dota and soda any format of ``rsd2 convert-labels``, for coco, tiny and aitod
a COCO file, whose ``category_id`` the results then use. Arguments NAME=VALUE at the end are options
of the protocol's evaluator, such as ``difficult_policy=v1.5`` or ``max_detections=1500``.

The scores are printed; --output also gets them as JSON with protocol, counts and versions, and the
detections that were scored. Results for a server that has the labels are written by
``rsd2 train --eval-only ... dataloader.evaluator.format_only=true``.

Exit code 0: scored. 2: labels or results cannot be used; the message names the file and the line.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from tabulate import tabulate

from rsd2.data.datasets.any_format import register_dataset
from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.datasets.coco_boxes import register_coco_boxes
from rsd2.evaluation.aitod import AitodEvaluator
from rsd2.evaluation.coco import CocoEvaluator
from rsd2.evaluation.dota import DotaEvaluator
from rsd2.evaluation.drone_crowd import DroneCrowdEvaluator
from rsd2.evaluation.evaluator import BoxEvaluator
from rsd2.evaluation.moving_object import MovingObjectEvaluator
from rsd2.evaluation.soda import SodaEvaluator
from rsd2.evaluation.tiny import TinyEvaluator
from rsd2.io.folder_run import run_command
from rsd2.io.text import read_json

PROTOCOLS: dict[str, type[DotaEvaluator] | type[BoxEvaluator]] = {
    "dota": DotaEvaluator,
    "soda": SodaEvaluator,
    "coco": CocoEvaluator,
    "tiny": TinyEvaluator,
    "aitod": AitodEvaluator,
    "video": MovingObjectEvaluator,
    "dronecrowd": DroneCrowdEvaluator,
}
_OWN_LABELS = "labels_of_the_command_line"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--protocol", required=True, choices=list(PROTOCOLS), help="rules of the scores")
    add("--results", required=True, metavar="PATH", help="result file or folder, see above")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--dataset", metavar="NAME", help="registered data set with the labels")
    labels.add_argument("--annotations", type=Path, metavar="PATH", help="labels of own data")
    add("--images", type=Path, metavar="DIR", help="images of --annotations (its folder)")
    add("--classes", nargs="+", metavar="NAME", help="classes of --annotations; a COCO file's own")
    add("--on-problem", choices=("error", "drop"), default="error",
        help="drop wrong entries of a JSON list, and count them (error)")  # fmt: skip
    add("--output", metavar="DIR", help="gets scores and detections as files")
    add("opts", nargs="*", metavar="NAME=VALUE", help="options of the evaluator")
    return parser


def register_labels(args: argparse.Namespace) -> str:
    """Register the labels of ``--annotations``.

    Args:
        args: parsed arguments of the command line.

    Returns:
        Name of the data set.

    Raises:
        ValueError: the protocol needs a registered data set, or the classes are missing.
        FileNotFoundError: there is no such file.
    """
    path = args.annotations
    images = args.images or path.parent
    if args.protocol in ("video", "dronecrowd"):
        raise ValueError(f"--protocol {args.protocol} needs --dataset, which knows the videos")
    # Programs may call this command several times in one process.
    if _OWN_LABELS in DatasetCatalog.list():
        DatasetCatalog.remove(_OWN_LABELS)
        MetadataCatalog.remove(_OWN_LABELS)

    if args.protocol in ("dota", "soda"):
        if not args.classes:
            raise ValueError(f"--protocol {args.protocol} needs --classes, in your own order")
        register_dataset(_OWN_LABELS, path, images, classes=args.classes)
        return _OWN_LABELS

    categories = _read_categories(path)
    missing = [name for name in args.classes or () if name not in categories]
    if missing:
        raise ValueError(f"{path} has no category {missing[0]!r}; it has {', '.join(categories)}")
    names = args.classes or list(categories)
    metadata = {"thing_classes": names, "category_ids": [categories[name] for name in names]}
    register_coco_boxes(_OWN_LABELS, metadata, path, images)
    return _OWN_LABELS


def _read_categories(path: Path) -> dict[str, int]:
    """Return name -> number of the categories of a COCO file, by their numbers."""
    content = read_json(path)
    try:
        categories = sorted(content["categories"], key=itemgetter("id"))
        return {str(one["name"]): one["id"] for one in categories}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} lists no categories with id and name ({error!r}); give a COCO annotation file"
        ) from error


def read_options(opts: Sequence[str]) -> dict[str, Any]:
    """Read the evaluator's options, as configs write them.

    Args:
        opts: words NAME=VALUE.

    Returns:
        Name -> plain value.

    Raises:
        ValueError: a word has no name or value.
    """
    for word in opts:
        if not all(word.partition("=")):
            raise ValueError(f"{word!r}: write an option of the evaluator as NAME=VALUE")
    content = OmegaConf.to_container(OmegaConf.from_dotlist(list(opts)))
    # Words that all have a name make a dict; the type of OmegaConf's result says less.
    return {str(k): v for k, v in content.items()} if isinstance(content, dict) else {}


def run(args: argparse.Namespace) -> None:
    """Score the results and print the scores.

    Args:
        args: parsed arguments of the command line.

    Raises:
        ValueError: labels, results or options cannot be used.
        FileNotFoundError: a file is missing.
    """
    # The evaluators warn of missing images and the like, which a user of a command must see.
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    register_builtin()
    if args.dataset and args.dataset not in DatasetCatalog.list():
        known = ", ".join(sorted(DatasetCatalog.list()))
        raise ValueError(f"no data set {args.dataset!r}; give --annotations, or one of {known}")
    if args.dataset and (args.images or args.classes):
        raise ValueError("--images and --classes belong to --annotations; --dataset has its own")
    if args.protocol in ("dota", "soda") and args.on_problem == "drop":
        raise ValueError(f"--on-problem drop is for JSON lists, not --protocol {args.protocol}")

    try:
        evaluator = PROTOCOLS[args.protocol](
            args.dataset or register_labels(args),
            output_dir=args.output,
            distributed=False,
            **read_options(args.opts),
        )
    except TypeError as error:  # a name that the evaluator does not take
        raise ValueError(f"--protocol {args.protocol}: {error}") from error

    evaluator.reset()
    if isinstance(evaluator, DotaEvaluator):
        evaluator.process_file(args.results)
    else:
        evaluator.process_file(args.results, on_problem=args.on_problem)
    scores: Mapping[str, float] = evaluator.evaluate().get("bbox", {})
    print(tabulate(scores.items(), floatfmt=".2f", tablefmt="pipe", headers=["score", "percent"]))
    if args.output:
        print(f"protocol, counts and detections: {args.output}")


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The exit code, see the top of this file.
    """
    args = get_parser().parse_intermixed_args(argv)
    return run_command(lambda: run(args))
