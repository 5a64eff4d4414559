"""Decode the maps of centre heads into boxes.

Shapes: B frames, K classes, N detections of a frame, H, W height and width of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from rsd2.modeling.soft_nms import BoxesScoresClasses, soften_detections


def decode(
    outputs: Mapping[str, torch.Tensor],
    *,
    top_k: int = 100,
    score_floor: float = 0.0,
    soft_nms: bool = True,
) -> list[BoxesScoresClasses]:
    """Find the peaks of the heat maps and their boxes.

    Source: CenterNet (arXiv 1904.07850), section 4.1. A pixel is a peak if none of its eight
    neighbours is higher. A negative width or height counts as 0.

    Args:
        outputs: ``hm`` (B, K, H, W) logits, ``wh`` (B, 2, H, W) and ``reg`` (B, 2, H, W), pixels.
        top_k: number of peaks to keep per frame, all classes together; >= 1.
        score_floor: peaks must score more than this; in [0, 1).
        soft_nms: lower the scores of boxes that overlap better ones of their class, see
            `rsd2.modeling.soft_nms`.

    Returns:
        For each frame: boxes (N, 4) XYXY in pixels, not cut at the frame, scores (N,) in [0, 1],
        descending, and classes (N,) int64.

    Raises:
        ValueError: see `check_decoding`.
    """
    check_decoding(top_k, score_floor)
    found = []
    for boxes, scores, classes in zip(*find_peaks(outputs, top_k)):
        keep = scores > score_floor  # pixels that are no peak have a score of 0
        detections = boxes[keep], scores[keep], classes[keep]
        found.append(soften_detections(*detections) if soft_nms else detections)
    return found


def find_peaks(outputs: Mapping[str, torch.Tensor], top_k: int) -> BoxesScoresClasses:
    """Find the highest peaks of every frame; nothing depends on their number.

    Args:
        outputs: see `decode`.
        top_k: see `decode`; N is this number, or that of all pixels if there are fewer.

    Returns:
        Boxes (B, N, 4) XYXY in pixels, scores (B, N), descending, and classes (B, N) int64. A
        frame with fewer peaks has scores of 0 at the end.
    """
    scores = outputs["hm"].sigmoid()
    height, width = scores.shape[2:]
    # A 3x3 maximum is the non-maximum suppression of centre heads; equal neighbours both stay.
    is_peak = F.max_pool2d(scores, 3, stride=1, padding=1) == scores
    count = min(top_k, scores[0].numel())
    best, places = (scores * is_peak).flatten(1).topk(count)
    # The top k runs over all classes together: a place is class, row and column in one number.
    classes = torch.div(places, height * width, rounding_mode="floor")
    pixels = places % (height * width)

    chosen = pixels[:, None].expand(-1, 2, -1)
    offset, size = (outputs[name].flatten(2).gather(2, chosen) for name in ("reg", "wh"))
    rows = torch.div(pixels, width, rounding_mode="floor")
    center = torch.stack([pixels % width, rows], dim=1) + offset
    half = size.clamp(min=0) / 2
    return torch.cat([center - half, center + half], dim=1).transpose(1, 2), best, classes


def check_decoding(top_k: int, score_floor: float) -> None:
    """Validate arguments of `decode`.

    Args:
        top_k: see `decode`.
        score_floor: see `decode`.

    Raises:
        ValueError: ``top_k`` is less than 1, or ``score_floor`` outside [0, 1).
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if not 0 <= score_floor < 1:
        raise ValueError(f"score_floor must be in [0, 1), got {score_floor}")
