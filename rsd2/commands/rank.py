"""List unlabelled images by how unsure a detector is of them: the next ones to label come first.

    python tools/rank.py --weights output/model_final.pth --input images/ --output ranking
    python tools/rank.py --weights output/model_final.pth --input images/ --output ranking \\
        --by disagreement --labelled labelTxt/ --count 50 --contact-sheet 24

The output folder gets these files:

* ``ranking.csv`` and ``ranking.json``: every image with its rank and the value of each measure;
* ``next.txt``: the first --count images, a list for ``dataloader.train.dataset.split_file``;
* ``next.png``: with --contact-sheet, the first images with the detections drawn;
* ``images/``: a JSON file for each image, by which an interrupted run continues.

Every detection above --score-threshold gets a value in [0, 1] by each measure:

* entropy: of its score s as a probability, -s log2 s - (1 - s) log2 (1 - s);
* margin: 1 - min(abs(2 s - 1), abs(s - t)), where t is the best score of another class at the
  same place (rotated IoU 0.5 or more), if one was reported;
* disagreement of the raw and the averaged weights of one checkpoint (train.ema): detections of a
  class are paired by IoU; a pair counts max(s, t) - IoU * min(s, t), a detection alone its score.

A score of Deformable DETR is the sigmoid of one class, independent of the others; one of
Faster R-CNN is a share of a softmax over the classes and the background. Both are read as "this
class, or not?". --summary makes one value of an image: the sum of its detections (default, which
favours images with many objects), their mean, or the greatest. Images without any detection have
the value 0 and come last, although the detector may have missed everything there.

Exit code 0: all done, or the rest belongs to other processes (RANK and WORLD_SIZE share the
images). 2: nothing could be done, or some images could not be read; the list then lacks them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.data.drawing.boxes import class_color, draw_rotated_boxes, make_contact_sheet
from rsd2.data.splits import read_split, write_split
from rsd2.export.description import ExportError
from rsd2.inference.detector import Detector
from rsd2.inference.prediction_inputs import expand_image_inputs
from rsd2.inference.uncertainty import (
    SUMMARIES,
    disagreement,
    score_closeness,
    score_entropy,
)
from rsd2.io.files import file_digest, make_output_folder, write_atomically
from rsd2.io.folder_run import (
    FolderRun,
    claim_folder,
    make_run_id,
    run_command,
    shard_from_environment,
)
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image, write_image
from rsd2.weights.packed import find_packed

from .detector import load_detector
from .model_loading import is_onnx

MEASURES = ("entropy", "margin", "disagreement")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="checkpoint, .onnx or packed model")
    add("--config-file", metavar="FILE", help="config.yaml beside the weights by default")
    add("--ema", action="store_true", help="use the averaged weights of the checkpoint")
    add("--input", required=True, nargs="+", metavar="PATH", help="images, folders or patterns")
    add("--output", required=True, type=Path, metavar="DIR", help="gets the lists, see above")
    add("--by", choices=MEASURES, default="entropy", help="measure to sort by (default entropy)")
    add("--summary", choices=list(SUMMARIES), default="sum", help="rule for an image's value (sum)")
    add("--count", type=int, default=100, help="images of next.txt (default 100)")
    text = "leave these images out: a list of their names, or the folder of their labels"
    add("--labelled", type=Path, metavar="PATH", help=text)
    add("--contact-sheet", type=int, default=0, metavar="N", help="draw the first N images")
    add("--score-threshold", type=float, default=0.1, help="lowest score that counts (0.1)")
    add("--window", type=int, help="side of the windows, pixels (default that of rsd2 predict)")
    add("--overlap", type=int, help="overlap of the windows, pixels (default that of rsd2 predict)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    return parser


def choose_images(inputs: Sequence[str], labelled: Path | None) -> list[Path]:
    """Find the images to rank.

    Args:
        inputs: files, folders and patterns of the command line.
        labelled: list of names, or folder of label files, of images to leave out; None for none.

    Returns:
        The images in the order of the inputs.

    Raises:
        FileNotFoundError: an input matches nothing, or ``labelled`` does not exist.
        ValueError: no image is left.
    """
    images, _ = expand_image_inputs(inputs)
    if labelled is None:
        return images

    # Compared without their endings, because a label file has another one than its image.
    if labelled.is_dir():
        known = {path.stem for path in labelled.iterdir()}
    else:
        paths = map(Path, read_split(labelled))
        known = {p.stem if p.suffix.lower() in IMAGE_EXTENSIONS else p.name for p in paths}

    left = [path for path in images if path.stem not in known]
    if not left:
        raise ValueError(f"all {len(images)} images have labels in {labelled}; nothing to rank")
    print(f"{len(images) - len(left)} of {len(images)} images are labelled and left out")
    return left


def build_detectors(args: argparse.Namespace) -> list[Detector]:
    """Load the detector, and the one of the other weights if they are to be compared.

    Args:
        args: parsed arguments of the command line.

    Returns:
        One detector, or two.

    Raises:
        ValueError: an option is out of range, or an exported file has no averaged weights.
        FileNotFoundError: the weights or the config are missing.
        CheckpointError: the weights cannot be used, or have no average to compare.
        ExportError: the ONNX file cannot be used.
    """
    compared = args.by == "disagreement"
    if compared and is_onnx(args.weights):
        raise ValueError("--by disagreement needs a checkpoint with averaged weights, not .onnx")

    load = partial(
        load_detector,
        args.weights,
        args.config_file,
        device=args.device,
        window=args.window,
        overlap=args.overlap,
        score_threshold=args.score_threshold,
    )
    return [load(ema=ema) for ema in ([args.ema, not args.ema] if compared else [args.ema])]


def measure_image(path: Path, detectors: Sequence[Detector]) -> dict[str, Any]:
    """Detect in an image and measure every detection.

    Args:
        path: path of the image.
        detectors: detector whose detections count, and one to compare it with or none.

    Returns:
        Plain values: the file, boxes, scores and classes, and each measure's values.

    Raises:
        OSError: the image cannot be read.
        ValueError: the file is no image.
    """
    pixels = read_image(path)
    found = [one.find(pixels) for one in detectors]
    first = found[0]
    values = {"entropy": score_entropy(first.scores), "margin": score_closeness(first)}
    if len(found) > 1:
        values["disagreement"] = disagreement(*found)

    return {
        "file": str(path),
        "boxes": first.boxes.tolist(),
        "scores": first.scores.tolist(),
        "classes": first.classes.tolist(),
        "measures": {name: value.tolist() for name, value in values.items()},
    }


def sort_images(
    measured: Sequence[Mapping[str, Any]], by: str, summary: str
) -> list[dict[str, Any]]:
    """Summarize the measures of each image and sort the images.

    Args:
        measured: results of `measure_image`.
        by: measure to sort by.
        summary: name of a rule of `SUMMARIES`.

    Returns:
        Rows with ``rank`` from 1, ``image``, ``detections`` and each measure, the most uncertain
        image first; equal ones by their names.
    """
    rows = []
    for one in measured:
        values = {
            name: round(SUMMARIES[summary](np.array(each)), 6)
            for name, each in one["measures"].items()
        }
        rows.append({"image": one["file"], "detections": len(one["scores"]), **values})

    rows.sort(key=lambda row: (-row[by], row["image"]))
    return [{"rank": number, **row} for number, row in enumerate(rows, start=1)]


def draw_sheet(path: Path, measured: Sequence[Mapping[str, Any]], captions: Sequence[str]) -> None:
    """Draw images with their detections on one sheet.

    Args:
        path: path of the PNG file.
        measured: results of `measure_image`, in the order of the sheet.
        captions: a line below each image.

    Raises:
        OSError: an image cannot be read, or the sheet cannot be written.
    """
    drawings = []
    for one in measured:
        boxes = np.array(one["boxes"], dtype=np.float64).reshape(-1, 5)
        colors = [class_color(index) for index in one["classes"]]
        drawn = draw_rotated_boxes(
            read_image(one["file"]), boxes, scores=one["scores"], colors=colors
        )
        drawings.append(drawn)
    write_image(path, make_contact_sheet(drawings, captions))


def write_lists(
    args: argparse.Namespace, settings: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]
) -> None:
    """Write the ranking, the list of the next images, and the sheet if it is asked for.

    Args:
        args: parsed arguments of the command line.
        settings: what decided the measures, for the record.
        measured: results of `measure_image`.

    Raises:
        OSError: a file cannot be written.
    """
    rows = sort_images(measured, args.by, args.summary)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(args.output / "ranking.csv", table.getvalue())
    record = {"by": args.by, "summary": args.summary, **settings, "images": rows}
    write_atomically(args.output / "ranking.json", json.dumps(record, indent=1))

    first = rows[: args.count]
    paths = [Path(row["image"]).with_suffix("") for row in first]
    # Ids of images are names without a folder, unless two folders hold the same name.
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = list(map(str, paths))
    notes = [f"the first {len(first)} of {len(rows)} images by {args.summary} of {args.by}"]
    write_split(args.output / "next.txt", names, notes)

    sheet = rows[: args.contact_sheet]
    if sheet:
        by_file = {one["file"]: one for one in measured}
        captions = [f"{row['rank']}: {row[args.by]:.2f} {Path(row['image']).name}" for row in sheet]
        draw_sheet(args.output / "next.png", [by_file[row["image"]] for row in sheet], captions)
    print(f"{len(rows)} images ranked by {args.summary} of {args.by}; see {args.output}")


def run(args: argparse.Namespace) -> None:
    """Measure the images that are missing, and write the lists when all are done.

    Args:
        args: parsed arguments of the command line.

    Raises:
        ValueError: an option or an input cannot be used.
        OSError: a result cannot be written.
        RuntimeError: some images could not be read; the message lists them.
    """
    if args.count < 1 or args.contact_sheet < 0:
        raise ValueError("--count must be at least 1 and --contact-sheet at least 0")
    images = choose_images(args.input, args.labelled)
    detectors = build_detectors(args)
    weights = Path(args.weights)
    config = Path(args.config_file or weights.with_name("config.yaml"))
    if packed := find_packed(weights):
        weights, config = packed.weights, packed.config

    # Everything that decides a value; the rules of sorting may change without a new search.
    settings = {
        "weights_sha256": file_digest(weights),
        "config_sha256": None if is_onnx(weights) else file_digest(config),
        "ema": args.ema,
        "measures": list(MEASURES[: len(detectors) + 1]),
        **asdict(detectors[0].parameters),
    }
    record, folder = args.output / "settings.json", args.output / "images"
    claim_folder(args.output, record, settings, holds="measures", contents=[folder])
    make_output_folder(folder)
    write_atomically(record, json.dumps(settings, indent=1))

    # Named after the file's path, size and time: images of one name in two folders, and one that
    # has changed, are measured separately.
    parts = {}
    for path in images:
        status = path.stat()
        stamp = make_run_id({}, [str(path), str(status.st_size), str(status.st_mtime_ns)])
        parts[path] = folder / f"{path.stem}-{stamp}.json"

    def measure(path: Path) -> None:
        write_atomically(parts[path], json.dumps(measure_image(path, detectors)))

    todo = FolderRun(images, lambda path: parts[path].is_file(), shard_from_environment())
    failed = todo.make(measure, title="images", unit="image", survivable=(OSError, ValueError))
    done = [path for path in images if parts[path].is_file()]
    # What failed here has been tried; what is missing without a failure belongs to others.
    if len(done) + len(failed) < len(images):
        print(
            f"{len(images) - len(done)} images are not measured yet; run the same command again "
            "when the other processes have ended, to do what they left and write the lists"
        )
    elif done:
        write_lists(args, settings, [json.loads(parts[path].read_text("utf-8")) for path in done])

    if failed:
        reasons = "\n  ".join(reason for _, reason in failed)
        raise RuntimeError(f"{len(failed)} images could not be measured:\n  {reasons}")


def main(argv: list[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The exit code, see the top of this file.
    """
    args = get_parser().parse_args(argv)

    def work() -> None:
        try:
            run(args)
        except ExportError as error:
            raise ValueError(str(error)) from error

    return run_command(work)
