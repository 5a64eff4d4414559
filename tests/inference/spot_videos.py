"""Little videos of bright spots, and a model that finds these."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn


class Spots(nn.Module):
    """Finds bright spots of 5 x 5 px in the newest frame; the score is the share of red."""

    def __init__(self) -> None:
        super().__init__()
        self.clips: list[torch.Tensor] = []

    def forward(self, inputs: list[dict]) -> list[dict]:
        outputs = []
        for item in inputs:
            self.clips.append(item["frames"])
            newest = item["frames"][0].numpy()
            count, _, stats, centers = cv2.connectedComponentsWithStats(
                (newest.max(axis=0) > 100).astype(np.uint8)
            )
            rows = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] > 4]
            scale = item["height"] / newest.shape[1]
            boxes = [[x - 2, y - 2, x + 3, y + 3] for x, y in centers[rows]]
            red = [newest[2, round(y), round(x)] / 255 for x, y in centers[rows]]
            found = Instances((item["height"], item["width"]))
            found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4).float() * scale)
            found.scores = torch.tensor(red, dtype=torch.float32)
            found.pred_classes = torch.zeros(len(rows), dtype=torch.int64)
            outputs.append({"instances": found})
        return outputs


def picture(
    number: int, size: tuple[int, int] = (60, 90), spots: tuple = ((20, 30),)
) -> np.ndarray:
    """A dark frame whose grey says its number, with a red spot that moves right."""
    image = np.full((*size, 3), number, dtype=np.uint8)
    for x, y in spots:
        image[y : y + 5, x + number : x + number + 5] = (230, 20, 20)
    return image


def write_folder(folder: Path, numbers: range | list[int], **options) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        image = cv2.cvtColor(picture(number, **options), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:06d}.png"), image)
    return folder
