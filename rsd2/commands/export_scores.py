"""Score a torch model and its exported file on the test set of the config.

Shapes: N detections of one image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, RotatedBoxes
from omegaconf import DictConfig
from tabulate import tabulate
from tqdm import tqdm

from rsd2.export.parity import Detect
from rsd2.structures import to_horizontal

SCORE_POINTS = 0.01
"""Largest allowed difference of a metric, in points: detections agree to more digits than that."""


def evaluate(
    cfg: DictConfig, detectors: Sequence[Detect], to_item: Callable[[dict], Any], is_upright: bool
) -> list[dict[str, float]]:
    """Run detectors on the config's test images, and score them by its evaluator.

    Args:
        cfg: the config; its evaluator's output folder is not written to.
        detectors: detectors that resize by themselves.
        to_item: makes what they take from what the test mapper makes without augmentations.
        is_upright: whether the boxes of images are upright ones, written with an angle of 0.

    Returns:
        For each detector the metrics, in percent, nan where undefined.

    Raises:
        ValueError: the test set cannot be read or scored.
    """
    cfg = copy.deepcopy(cfg)
    cfg.dataloader.test.mapper.augmentations = []
    cfg.dataloader.evaluator.output_dir = None
    loader = instantiate(cfg.dataloader.test)
    evaluators = [instantiate(cfg.dataloader.evaluator) for _ in detectors]
    for evaluator in evaluators:
        evaluator.reset()

    for batch in tqdm(loader, desc="scoring", unit="batch"):
        items = [to_item(x) for x in batch]
        # Both see the same pixels, which are read once.
        for detect, evaluator in zip(detectors, evaluators):
            sizes = [(x["height"], x["width"]) for x in batch]
            found = [_instances(*x, is_upright) for x in zip(detect(items), sizes)]
            evaluator.process(batch, [{"instances": x} for x in found])

    scores = [evaluator.evaluate() for evaluator in evaluators]
    return [{k: v for task in tasks.values() for k, v in task.items()} for tasks in scores]


def image_of(mapped: dict, image_format: str) -> np.ndarray:
    """Return the image (h, w, 3) uint8 RGB of what a mapper of images makes."""
    return _to_rgb(mapped["image"], image_format)


def clip_of(mapped: dict) -> list[np.ndarray]:
    """Return the images (h, w, 3) uint8 RGB, newest first, of what a mapper of clips makes."""
    return [_to_rgb(frame, "BGR") for frame in mapped["frames"]]


def compare_scores(first: dict[str, float], second: dict[str, float]) -> tuple[str, bool]:
    """Tabulate the metrics of two detectors.

    Args:
        first: metrics of the torch model, in percent.
        second: those of the file.

    Returns:
        The table, and whether they differ by no more than `SCORE_POINTS`.
    """
    gaps = {
        name: 0.0 if math.isnan(value) and math.isnan(second[name]) else abs(value - second[name])
        for name, value in first.items()
    }
    rows = [[name, first[name], second[name], gap] for name, gap in gaps.items()]
    table = tabulate(rows, ["metric", "torch", "ONNX Runtime", "difference"], floatfmt=".3f")
    # A metric that is undefined for one alone has a difference of nan, which is not less.
    return table, all(gap <= SCORE_POINTS for gap in gaps.values())


def _to_rgb(pixels: torch.Tensor, image_format: str) -> np.ndarray:
    image = pixels.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)


def _instances(
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor], size: tuple[int, int], is_upright: bool
) -> Instances:
    """Make Detectron2's form of detections, of boxes (N, 4) XYXY or (N, 5)."""
    boxes, scores, classes = found
    if boxes.shape[1] == 5 and is_upright:
        boxes = to_horizontal(boxes)
    instances = Instances(size)
    instances.pred_boxes = Boxes(boxes) if boxes.shape[1] == 4 else RotatedBoxes(boxes)
    instances.scores, instances.pred_classes = scores, classes
    return instances
