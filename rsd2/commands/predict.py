"""Detect objects in images of any size: drawings, DOTA text files and one JSON file.

    python tools/predict.py --config-file CONFIG.py --weights model_final.pth \\
        --input images/ --output predictions --score-threshold 0.3
    python tools/predict.py --config-file CONFIG.py --input 'scenes/*.tif' --output predictions \\
        --window 800 --overlap 200 train.init_checkpoint=model_final.pth
    python tools/predict.py --config-file CLIP_CONFIG.py --weights model_final.pth \\
        --input traffic.mp4 videos/003/img1 --output predictions
    python tools/predict.py --weights model.onnx --input images/ --output predictions
    python tools/predict.py --weights models/port_ships --input images/ --output predictions

A file of ``rsd2 export`` needs no config; ONNX Runtime runs it. A folder of ``rsd2 pack`` needs
none either: give its path, its ``file:`` address, or its name in the folder that ``RSD2_MODELS``
names.

Larger images are cut into overlapping windows. Pieces of objects that the border of a window
cuts are dropped if another window sees more, and the detections of all windows are merged by
rotated NMS. Every window (or whole image) goes through the augmentations of
``dataloader.test.mapper``. The output folder gets these files, and existing ones are replaced:

* ``<image>.png``: the detections drawn;
* ``<image>.txt``: ``x1 y1 x2 y2 x3 y3 x4 y4 class score`` a line, the corners clockwise on screen
  in pixels of the image, spaces in class names written as ``_``;
* ``detections.json``: all images with boxes (cx, cy, w, h in pixels, angle in degrees,
  counter-clockwise on screen, 0 = w along x), polygons, scores, classes, and how it was done.

``--labels-format NAME`` adds ``pre_labels``, the detections as labels of an annotation tool, in a
format of ``rsd2 convert-labels``. They are never replaced: somebody may have corrected them.

A config whose test mapper has ``num_frames`` takes clips: every input is then a video file or the
folder of one video's frames, read as a stream. For each video the output folder gets
``<video>.txt`` (MOTChallenge rows), ``<video>.json`` (COCO results, ``image_id`` is the number of
the frame) and ``<video>.mp4`` (drawn), and ``videos.json`` about all videos.

Exit code 0: all done. 1: some images or frames could not be read (they are listed, the others are
done), or the weights or detections hold numbers that are not finite. 2: nothing could be done, or
writing failed. 130: interrupted; finished results are written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from rsd2.data.formats.registry import LABEL_FORMATS
from rsd2.export.onnx_detector import OnnxClipDetector, OnnxDetector
from rsd2.inference.clip_detector import ClipDetector
from rsd2.inference.image_detector import ImageDetector, note_on_windows
from rsd2.inference.prediction_files import JSON_NAME, PredictionWriter, output_names
from rsd2.inference.prediction_inputs import check_targets, expand_image_inputs, find_videos
from rsd2.inference.sliding_window import WindowParameters, detect_in_windows
from rsd2.inference.video_prediction import describe_results, predict_videos
from rsd2.io.image_io import ExifRule, read_image
from rsd2.io.program import print_error

from .model_loading import (
    PROBLEMS,
    build_clip_detector,
    build_image_detector,
    build_onnx_detector,
    class_names,
    damage_of,
    exported_class_names,
    is_onnx,
    read_model_config,
    read_parameters,
    read_test_mapper,
)
from .pre_labels import pre_labels_path, write_pre_labels


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="LazyConfig, .py or saved .yaml; not with .onnx")
    add(
        "--weights",
        metavar="FILE",
        help="checkpoint, .onnx or packed model; else that of the config",
    )
    add("--ema", action="store_true", help="use the averaged weights of the checkpoint")
    add("--input", required=True, nargs="+", metavar="PATH", help="images or videos, see above")
    add("--output", required=True, metavar="DIR", help="gets drawings, text files and JSON")
    add("--score-threshold", type=float, default=0.3, help="lowest score reported (default 0.3)")
    add(
        "--window",
        type=int,
        help="side of the windows, pixels (default that of .onnx, or 1024, or as much as a "
        "training image showed, where objects in 1024 would have other sizes for the model)",
    )
    add(
        "--overlap",
        type=int,
        help="overlap of neighbouring windows (default 200, at most a quarter of a default window)",
    )
    add(
        "--nms-threshold",
        type=float,
        help="IoU at which detections of several windows are merged (default 0.1, of clips 0.5); "
        "an image of one window keeps the model's own result, see model.nms_threshold",
    )
    add("--batch-size", type=int, default=1, help="windows in the model at once (default 1)")
    add(
        "--padding",
        action="store_true",
        help="fill windows that leave the image, as tools/prepare_dota.py does; keeps the scale "
        "of small images for a model that was trained on such tiles",
    )
    add(
        "--seams",
        choices=("drop", "join", "keep"),
        default="drop",
        help="pieces of objects at a window's border are dropped where another window sees more "
        "(drop, the default), joined where none sees the whole (join), or kept (keep)",
    )
    add(
        "--exif-orientation",
        choices=("ignore", "obey"),
        default="ignore",
        help="turn photographs upright as their EXIF data say (obey), or use the pixels as they "
        "are stored (ignore, the default), with a warning",
    )
    add("--classes", nargs="+", metavar="NAME", help="names; those of the test set by default")
    add(
        "--labels-format",
        choices=list(LABEL_FORMATS),
        metavar="NAME",
        help="also write the detections in images as labels to be corrected, pre_labels, in a "
        f"format of rsd2 convert-labels: {', '.join(LABEL_FORMATS)}",
    )
    add("--device", help="auto, cpu, cuda or cuda:N; train.device by default")
    add("--max-drawing-size", type=int, metavar="N", help="longer side of the drawings at most")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="overrides of the config")
    return parser


class UsageError(Exception):
    """The command line asks for something impossible."""


class Counts:
    """Counts of what happened besides the results.

    Attributes:
        failed: (file, reason) pairs of images that could not be read.
        seconds: seconds that detection took, all images together.
        below_threshold: detections dropped because of their score.
        non_finite: detections that were not finite.
    """

    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []
        self.seconds = 0.0
        self.below_threshold = self.non_finite = 0


def predict_all(
    images: Sequence[Path],
    detector: ImageDetector | OnnxDetector,
    parameters: WindowParameters,
    out: PredictionWriter,
    exif: ExifRule = "ignore",
) -> tuple[Counts, bool]:
    """Detect in every image and write the results.

    Args:
        images: paths.
        detector: the model.
        parameters: parameters of windows and merging.
        out: writer that takes the results.
        exif: rule for the EXIF orientation of an image.

    Returns:
        The counts, and False if the user interrupted the run.

    Raises:
        OSError: a result cannot be written.
    """
    counts = Counts()
    # Two folders may hold images of one name, whose results must not replace each other.
    names = output_names(images)
    noted = False
    # Interrupting keeps everything that is written, so the exception ends here.
    try:
        for path, name in zip(tqdm(images, desc="images", unit="image"), names):
            try:
                image = read_image(path, exif=exif)
            except (OSError, ValueError) as error:
                counts.failed.append((str(path), str(error)))
                continue

            height, width = image.shape[:2]
            note = "" if noted else note_on_windows(detector, height, width, parameters)
            if note:
                tqdm.write(f"{path}: {note}", file=sys.stderr)
                noted = True

            # A bar of windows shows up for images that take longer than two seconds.
            with tqdm(desc=name, unit="window", leave=False, delay=2) as bar:

                def show(done: int, total: int, bar: tqdm = bar) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                start = time.perf_counter()
                found = detect_in_windows(image, detector, parameters, show)
                seconds = time.perf_counter() - start

            out.add(path, name, image, found, seconds)
            counts.seconds += seconds
            counts.below_threshold += found.num_below_threshold
            counts.non_finite += found.num_non_finite
    except KeyboardInterrupt:
        return counts, False

    return counts, True


def report(
    out: PredictionWriter, counts: Counts, num_images: int, damage: str | None = None
) -> bool:
    """Print the numbers of detections, and everything that failed.

    Args:
        out: writer that took the results.
        counts: counts of everything else.
        num_images: number of images that were asked for.
        damage: sentence about weights that are not finite, or None.

    Returns:
        Whether everything went well.
    """
    print(
        f"{out.num_detections} detections in {out.num_images} of {num_images} images "
        f"({counts.below_threshold} more below the score threshold), "
        f"{counts.seconds / max(out.num_images, 1):.3f} seconds per image; see {out.folder}"
    )
    if counts.non_finite:
        print(
            f"{counts.non_finite} detections were not finite and are left out: are these the right "
            "weights?",
            file=sys.stderr,
        )

    if damage:
        print(damage, file=sys.stderr)
    if counts.failed:
        print(f"{len(counts.failed)} images could not be read:", file=sys.stderr)
        for _, reason in counts.failed:
            print(f"  {reason}", file=sys.stderr)

    return not (counts.non_finite or damage or counts.failed)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and allow overrides after ``--input`` and ``--classes``.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The flags, with the overrides in ``opts``.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    for name in ("input", "classes"):
        values = getattr(args, name) or []
        # ``nargs="+"`` takes everything up to the next flag, so overrides land among the values.
        overrides = [x for x in values if "=" in x and not Path(x).exists()]
        setattr(args, name, [x for x in values if x not in overrides] or None)
        args.opts = overrides + args.opts

    if not args.input:
        parser.error("--input is missing")
    if args.max_drawing_size is not None and args.max_drawing_size < 1:
        parser.error(f"--max-drawing-size must be positive, got {args.max_drawing_size}")
    return args


def run_on_videos(
    args: argparse.Namespace, source: DictConfig | tuple[OnnxDetector, dict[str, Any]]
) -> int:
    """Detect in videos with a model of clips.

    Args:
        args: parsed arguments of the command line.
        source: the config, or an exported file with its provenance.

    Returns:
        The exit code.

    Raises:
        ValueError: the inputs or parameters cannot be used.
        CheckpointError: the weights cannot be used.
        OSError: a result cannot be written.
    """
    if args.labels_format:
        raise ValueError("--labels-format is for images; a config of clips writes tracks")
    videos = find_videos(args.input)
    detector: ClipDetector | OnnxClipDetector
    if isinstance(source, tuple):
        exported, origin = source
        window = exported.description.window
        parameters = read_parameters(args, 0.5, window, min(200, window // 4))
        detector = OnnxClipDetector(exported)
        classes = exported_class_names(args.classes, exported)
    else:
        parameters = read_parameters(args, 0.5)
        # Videos are found before the model is built, because loading it takes longest.
        detector, origin = build_clip_detector(args, source)
        classes = class_names(args.classes, source)
        classes = classes or list(map(str, range(source.model.num_classes)))

    results, unreadable = predict_videos(
        videos,
        Path(args.output),
        detector,
        parameters,
        classes=classes,
        protocol={**asdict(parameters), **origin},
        max_drawing_size=args.max_drawing_size,
    )

    text, problems = describe_results(results, unreadable)
    problems = "\n".join(filter(None, [problems, damage_of(detector, origin)]))
    print(f"{text}; see {args.output}")
    print(problems, file=sys.stderr, end="\n" if problems else "")

    if not all(result.complete for result in results):
        print("interrupted; the files hold what was done", file=sys.stderr)
        return 130
    if not results:
        return 2
    return 1 if problems else 0


def run(args: argparse.Namespace) -> int:
    """Detect in images or videos.

    Args:
        args: parsed arguments of the command line.

    Returns:
        The exit code.

    Raises:
        UsageError: nothing can be done; the message says what to change.
        OSError: a result cannot be written.
    """
    detector: ImageDetector | OnnxDetector
    try:
        if is_onnx(args.weights):
            exported, origin = build_onnx_detector(args)
            if exported.description.num_frames is not None:
                return run_on_videos(args, (exported, origin))
            detector = exported
            classes = exported_class_names(args.classes, exported)
            window = exported.description.window
            parameters = read_parameters(args, 0.1, window, min(200, window // 4))
        else:
            parameters = read_parameters(args, 0.1)
            cfg = read_model_config(args)
            if "num_frames" in read_test_mapper(cfg):
                return run_on_videos(args, cfg)

        images, num_others = expand_image_inputs(args.input)
        # Targets are checked before the model is built, because loading it takes longest.
        check_targets(images, Path(args.output))
        if args.labels_format:
            pre_labels_path(args.output, args.labels_format)
        if not is_onnx(args.weights):
            detector, origin = build_image_detector(args, cfg)
            if args.window is None:
                parameters = read_parameters(args, 0.1, *detector.usual_windows)
            classes = class_names(args.classes, cfg)
    except PROBLEMS as error:
        raise UsageError(str(error)) from error

    if num_others:
        print(f"{num_others} other files in the folders are not images and are skipped")
    # The writer finishes its JSON file even if the user interrupts the loop.
    with PredictionWriter(args.output, classes, args.max_drawing_size) as out:
        counts, complete = predict_all(images, detector, parameters, out, args.exif_orientation)
        out.finish({**asdict(parameters), **origin}, counts.failed, complete)
    if args.labels_format:
        print(write_pre_labels(out.folder, args.labels_format))

    is_well = report(out, counts, len(images), damage_of(detector, origin))
    if not complete:
        print(f"interrupted; {out.folder / JSON_NAME} holds what was done", file=sys.stderr)
        return 130
    return 0 if is_well else 1


def main(argv: list[str] | None = None) -> int:
    """Run the tool, and print one line if it fails.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The exit code, see the top of this file.
    """
    args = parse_arguments(argv)
    try:
        return run(args)
    except UsageError as error:
        problem = str(error)
    # The first line of torch's message has the sizes; the rest is about its allocator.
    except torch.cuda.OutOfMemoryError as error:
        problem = f"{str(error).splitlines()[0]} Use a smaller --batch-size or --window"
    except OSError as error:
        problem = f"cannot write to --output {args.output}: {error}"

    print_error(problem)
    return 2
