r"""Write a trained detector as one ONNX file, and compare it with its model.

    rsd2 export --config-file output/config.yaml --weights output/model_final.pth \
        --output model.onnx --window 1024
    rsd2 export --config-file output/config.yaml --weights output/model_final.pth \
        --output model.onnx --window 1024 --check images/
    rsd2 export --config-file output/config.yaml --weights output/model_final.pth \
        --output deepness.onnx --window 640 --resolution 0.3 --for deepness
    rsd2 export --config-file output/config.yaml --weights output/model_final.pth \
        --output model.onnx --window 1024 --score
    rsd2 predict --weights model.onnx --input images/ --output predictions

The graph takes windows of one size, as uint8 RGB, and contains mean and standard deviation. That of
a detector of clips takes windows of all frames, newest first, and ``rsd2 predict`` runs it on
videos.
Rotated NMS follows outside, in ``rsd2 predict`` and ``load_detector``. The file names its
classes, angles, window, pixels and the SHA-256 of the weights in its metadata.

A call of the graph takes any number of windows where the model allows it (rotated DETR), else one;
``--batch`` fixes another number.

``--check`` cuts the images, or the frames of videos, into windows of that size and runs the torch
model and the file on each. ``--score`` scores both on the config's test set by its evaluator; no
image may be larger than a window.

Exit code 0: written, and within the tolerance if checked. 1: written, but the two differ by more.
2: nothing was written.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig
from tqdm import tqdm

import rsd2
import rsd2.projects
from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.windows.tiling import crop_window
from rsd2.export.deepness import DeepnessGraph, deepness_props
from rsd2.export.description import Description, ExportError
from rsd2.export.graphs import DetectionGraph
from rsd2.export.kinds import GRAPHS, graph_of
from rsd2.export.onnx_detector import OnnxClipDetector, OnnxDetector
from rsd2.export.onnx_file import trace, write_onnx
from rsd2.export.parity import BOX_TOLERANCE, SCORE_TOLERANCE, compare
from rsd2.inference.clip_detector import ClipDetector
from rsd2.inference.image_detector import ImageDetector
from rsd2.inference.prediction_inputs import expand_image_inputs, find_videos
from rsd2.inference.sliding_window import WindowParameters, place_windows
from rsd2.inference.video_frames import make_clips, read_frames
from rsd2.io.files import file_digest
from rsd2.io.image_io import read_image
from rsd2.weights.checkpoint import describe_damage

from . import model_loading
from .export_scores import SCORE_POINTS, clip_of, compare_scores, evaluate, image_of

CLIP_FORMAT = "RGB, 0-255, uint8, (batch, frame, 3, height, width), newest frame first"


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config-file", metavar="FILE", help="LazyConfig, .py or saved .yaml; not of packed models"
    )
    add("--weights", metavar="FILE", help="checkpoint or packed model; else that of the config")
    add("--ema", action="store_true", help="use the averaged weights of the checkpoint")
    add("--output", required=True, metavar="FILE", help="the file, ends in .onnx; replaced")
    add(
        "--window",
        type=int,
        help="side of the windows, pixels (default 1024, or as much as a training image showed, "
        "where objects in 1024 would have other sizes for the model)",
    )
    add("--batch", metavar="N", help="windows in one call: a number, or any; see above")
    add("--classes", nargs="+", metavar="NAME", help="names; those of the test set by default")
    add("--resolution", type=float, metavar="METRES", help="size of a pixel of the training images")
    add("--for", dest="program", choices=("deepness",), help="another program than rsd2")
    add("--check", nargs="+", metavar="PATH", help="images, or videos, to compare both on")
    add("--score", action="store_true", help="compare the scores of both on the config's test set")
    add("--box-tolerance", type=float, default=BOX_TOLERANCE, help="pixels (default %(default)s)")
    add("--score-tolerance", type=float, default=SCORE_TOLERANCE, help="(default %(default)s)")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="overrides of the config")
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and validate the command line.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The flags, the overrides in ``opts``.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    # ``nargs="+"`` takes everything up to the next flag, so overrides land among the values.
    for name in ("check", "classes"):
        values = getattr(args, name) or []
        overrides = [x for x in values if "=" in x and not Path(x).exists()]
        setattr(args, name, [x for x in values if x not in overrides] or None)
        args.opts = overrides + args.opts

    batch = args.batch or "any"
    if batch != "any" and not (batch.isdecimal() and int(batch)):
        parser.error(f"--batch must be a positive number or any, got {batch}")
    if args.window is not None and args.window < 1:
        parser.error(f"--window must be positive, got {args.window}")
    if Path(args.output).suffix != ".onnx":
        parser.error(f"--output must end in .onnx, got {args.output}")
    if not Path(args.output).parent.is_dir():
        parser.error(f"the folder {Path(args.output).parent} of --output does not exist")
    if args.program and (args.check or args.score):
        parser.error("--check and --score compare what rsd2 runs itself; leave them or --for out")
    if args.program == "deepness" and not args.resolution:
        parser.error("--for deepness needs --resolution METRES, the size of a pixel")
    return args


def batch_size(asked: str | None, graph: DetectionGraph, program: str | None) -> int | None:
    """Choose how many windows a call of the graph takes.

    Args:
        asked: value of ``--batch``: a number, "any", or None.
        graph: the detector.
        program: program that the file is for; None for rsd2.

    Returns:
        Number of windows; None for any number.
    """
    if asked is None:
        # Older versions of Deepness refuse an open number.
        return None if graph.any_batch and program is None else 1
    return None if asked == "any" else int(asked)


def resizing(mapper: DictConfig) -> T.ResizeShortestEdge | None:
    """Return the resizing of the test mapper, which is done before the graph.

    Args:
        mapper: config of the test mapper.

    Returns:
        The resizing; None if there is none.

    Raises:
        ExportError: the mapper has other augmentations, which the file cannot describe.
    """
    augmentations = [instantiate(x) for x in mapper.augmentations]
    if not augmentations:
        return None

    (resize, *others) = augmentations
    # A random length would make the description of the file wrong.
    is_fixed = isinstance(resize, T.ResizeShortestEdge) and len(set(resize.short_edge_length)) == 1
    if others or not is_fixed:
        names = ", ".join(type(x).__name__ for x in augmentations)
        raise ExportError(
            "dataloader.test.mapper.augmentations may hold one ResizeShortestEdge of one length, "
            f"or nothing; the config has {names}"
        )
    return resize


def input_size(resize: T.ResizeShortestEdge | None, window: int) -> tuple[int, int]:
    """Return the size of a square window after resizing.

    Args:
        resize: resizing before the graph; None for no resizing.
        window: side of the window, pixels.

    Returns:
        (height, width), pixels.
    """
    if resize is None:
        return window, window

    side = resize.short_edge_length[0]
    return T.ResizeShortestEdge.get_output_shape(window, window, side, resize.max_size)


def all_graphs() -> dict[str, type[DetectionGraph]]:
    """Collect the graphs of this package and of the projects, by the names of the classes."""
    graphs = dict(GRAPHS)
    for module in rsd2.projects.find_modules("graphs"):
        graphs.update(module.GRAPHS)
    return graphs


def export(
    args: argparse.Namespace, cfg: DictConfig
) -> tuple[ImageDetector | ClipDetector, Description]:
    """Write the ONNX file.

    Args:
        args: parsed arguments of the command line.
        cfg: the config that they name.

    Returns:
        The torch detector that the file was made from, and the description in the file.

    Raises:
        ExportError: the model cannot be exported, or its weights are not finite.
        ValueError: see `model_loading.build_image_detector` and `model_loading.class_names`.
        CheckpointError: the weights cannot be used.
        OSError: the file cannot be written.
    """
    num_frames = model_loading.read_test_mapper(cfg).get("num_frames")
    detector: ImageDetector | ClipDetector
    if num_frames is None:
        detector, origin = model_loading.build_image_detector(args, cfg)
        args.window = args.window or detector.usual_windows[0]
        if note := detector.note_on_window(args.window, args.window):
            print(note, file=sys.stderr)
        graph = graph_of(detector.model, detector.image_format, all_graphs())
    else:
        detector, origin = model_loading.build_clip_detector(args, cfg)
        args.window = args.window or 1024
        graph = graph_of(detector.model, "BGR", all_graphs())
    names = model_loading.class_names(args.classes, cfg)
    # Nobody looks at single weights later: NaN in the file would just find no object.
    if damage := describe_damage(detector.model):
        raise ExportError(f"{origin['weights']} {damage}")

    if names and len(names) != graph.num_classes:
        raise ExportError(
            f"there are {len(names)} names, but the model has {graph.num_classes} classes; give "
            "them by --classes"
        )

    resize = resizing(cfg.dataloader.test.mapper)
    size = input_size(resize, args.window)
    batch = batch_size(args.batch, graph, args.program)
    description = Description(
        outputs=graph.outputs,
        classes=names or list(map(str, range(graph.num_classes))),
        window=args.window,
        input_size=size,
        batch=batch,
        resize=None if resize is None else (resize.short_edge_length[0], resize.max_size),
        pixel_mean=graph.rgb_mean(),
        finishing=graph.finishing(),
        model=type(detector.model).__name__,
        weights=Path(origin["weights"]).name,
        weights_sha256=file_digest(origin["weights"]),
        ema=args.ema,
        resolution=args.resolution,
        version=rsd2.__version__,
        num_frames=num_frames,
    )
    if num_frames is not None:
        description = replace(description, pixel_format=CLIP_FORMAT)

    props = description.to_props()
    traced: DetectionGraph | DeepnessGraph = graph
    if args.program == "deepness":
        traced = DeepnessGraph(graph)
        props = deepness_props(description)

    print(f"tracing a {description.model} at {size[1]} x {size[0]} pixels", flush=True)
    program = trace(traced, size, batch, num_frames)
    write_onnx(program, args.output, traced.output_names, props)
    return detector, description


def check(
    args: argparse.Namespace, detector: ImageDetector | ClipDetector, description: Description
) -> bool:
    """Compare the torch model and the file on windows of images, and print the differences.

    Args:
        args: parsed arguments of the command line.
        detector: the torch model.
        description: description in the file.

    Returns:
        Whether they differ by no more than the tolerance.

    Raises:
        ValueError: there is no image, or one cannot be read.
        OSError: a file cannot be read.
    """
    parameters = WindowParameters(description.window, overlap=0, padding=True)
    windows: list[np.ndarray | list[np.ndarray]] = []
    if description.num_frames is None:
        for path in expand_image_inputs(args.check)[0]:
            image = read_image(path)
            height, width = image.shape[:2]
            windows += [crop_window(image, x) for x in place_windows(height, width, parameters)]
    else:
        for path in find_videos(args.check):
            # A frame that cannot be read has no clip.
            clips = (clip for _, clip in make_clips(read_frames(path), description.num_frames))
            for clip in filter(None, clips):
                height, width = clip[0].shape[:2]
                boxes = place_windows(height, width, parameters)
                windows += [[crop_window(image, x) for image in clip] for x in boxes]

    with tqdm(desc="comparing", total=len(windows), unit="window") as bar:
        parity = compare(detector, open_exported(args.output), windows, progress=bar.update)
    print(parity)

    is_same = parity.is_within(args.box_tolerance, args.score_tolerance)
    limits = f"{args.box_tolerance:g} px and {args.score_tolerance:g}"
    print(f"{'within' if is_same else 'NOT within'} the tolerance of {limits}")
    return is_same


def open_exported(path: str) -> OnnxDetector | OnnxClipDetector:
    """Open the written file with as many threads as torch uses, so that times can be compared."""
    exported = OnnxDetector(path, num_threads=torch.get_num_threads())
    return exported if exported.description.num_frames is None else OnnxClipDetector(exported)


def score(
    args: argparse.Namespace,
    cfg: DictConfig,
    detector: ImageDetector | ClipDetector,
    description: Description,
) -> bool:
    """Score the torch model and the file on the config's test set, and print both.

    Args:
        args: parsed arguments of the command line.
        cfg: the config.
        detector: the torch model.
        description: description in the file.

    Returns:
        Whether they differ by no more than `export_scores.SCORE_POINTS`.

    Raises:
        ValueError: the test set cannot be scored, or an image is larger than a window.
    """
    register_builtin()
    to_item: Callable[[dict], Any] = clip_of
    if isinstance(detector, ImageDetector):
        to_item = functools.partial(image_of, image_format=detector.image_format)
    detectors = (detector, open_exported(args.output))
    is_upright = description.outputs != "rotated_pairs"

    table, is_same = compare_scores(*evaluate(cfg, detectors, to_item, is_upright))
    print(f"{table}\n{'equal' if is_same else 'NOT equal'} within {SCORE_POINTS:g} points")
    return is_same


def main(argv: list[str] | None = None) -> int:
    """Run the command, and print one line if it fails.

    Args:
        argv: arguments of the command line; None takes those of the process.

    Returns:
        The exit code, see the top of this file.
    """
    args = parse_arguments(argv)
    # The file is for the CPU, and the comparison must not mix devices.
    args.device = "cpu"
    # The exporter's notes on unfolded constants mean nothing to a user.
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        cfg = model_loading.read_model_config(args)
        if args.check:  # a misspelt path is found before the work
            takes_clips = "num_frames" in model_loading.read_test_mapper(cfg)
            (find_videos if takes_clips else expand_image_inputs)(args.check)
        detector, description = export(args, cfg)
        size = Path(args.output).stat().st_size / 1e6
        print(f"wrote {args.output}: {size:.1f} MB, {len(description.classes)} classes")
        is_same = not args.check or check(args, detector, description)
        # Both comparisons are printed, whatever the first one says.
        is_same &= not args.score or score(args, cfg, detector, description)
        return 0 if is_same else 1
    except (*model_loading.PROBLEMS, OSError) as error:
        print(f"rsd2 export: error: {error}", file=sys.stderr)
        return 2
