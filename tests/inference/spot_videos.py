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


def write_matroska(path: Path, milliseconds: list[int], images: list[np.ndarray]) -> None:
    """Write a video whose frames have time stamps of any distance, which OpenCV cannot.

    Args:
        path: any name.
        milliseconds: time stamp of each frame, rising.
        images: (H, W, 3) uint8 RGB each; stored as JPEG pictures.
    """

    def element(identifier: str, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return bytes.fromhex(identifier) + (len(body) | 1 << 56).to_bytes(8, "big") + body

    def number(identifier: str, value: int) -> bytes:
        return element(identifier, value.to_bytes(8, "big"))

    height, width = images[0].shape[:2]
    head = element("1A45DFA3", number("4286", 1), element("4282", b"matroska"), number("4287", 2))
    unit = element(
        "1549A966", number("2AD7B1", 1_000_000)
    )  # nanoseconds: stamps count milliseconds
    size = element("E0", number("B0", width), number("BA", height))
    track = element(
        *("AE", number("D7", 1), number("73C5", 1), number("83", 1)),
        *(element("86", b"V_MJPEG"), size),
    )
    clusters = []
    for stamp, image in zip(milliseconds, images):
        _, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        block = element("A3", b"\x81\x00\x00\x80", code.tobytes())
        clusters.append(element("1F43B675", number("E7", stamp), block))
    path.write_bytes(head + element("18538067", unit, element("1654AE6B", track), *clusters))
