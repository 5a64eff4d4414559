"""Pictures of detections beside the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from rsd2.data.drawing.boxes import class_color, draw_rotated_boxes, make_contact_sheet

_CELL = 384


class InputMapper(Protocol):
    """A mapper of a test loader, which says in what channel order it gives images."""

    image_format: str

    def __call__(self, dataset_dict: dict[str, Any], /) -> dict[str, Any]:
        """Turn a dataset dict into the input of a model, with ``image`` (3, H, W)."""


def draw_beside_truth(
    models: Mapping[str, nn.Module],
    records: Sequence[dict],
    mapper: InputMapper,
    class_names: Sequence[str],
    *,
    threshold: float,
    columns: int,
) -> np.ndarray:
    """Draw images with their labels, and the same images with the detections of each model.

    Args:
        models: title -> detector in evaluation mode.
        records: dataset dicts of the images.
        mapper: mapper of the test loader.
        class_names: names of the category ids.
        threshold: lowest score to draw.
        columns: number of pictures side by side; a multiple of ``1 + len(models)`` keeps the
            pictures of an image in one row.

    Returns:
        (H, W, 3) uint8 RGB, a sheet of all pictures with captions.
    """
    images, captions = [], []
    for record in tqdm(records, desc="drawing", unit="image"):
        inputs = mapper(record)
        truth = record.get("annotations", [])
        rows = [("truth", [a["bbox"] for a in truth], [a["category_id"] for a in truth], None)]
        for title, model in models.items():
            with torch.no_grad():
                # One image at a time: mappers may give images of different sizes.
                found = model([inputs])[0]["instances"].to("cpu")
            found = found[found.scores >= threshold]
            boxes, classes = found.pred_boxes.tensor.numpy(), found.pred_classes.tolist()
            rows.append((title, boxes, classes, found.scores.tolist()))

        size = (record["width"], record["height"])
        # Small images are enlarged, so that their boxes and captions stay readable.
        zoom = max(1, round(_CELL / max(size)))
        canvas = _enlarged(inputs["image"], mapper.image_format, (size[0] * zoom, size[1] * zoom))
        scale = np.array([zoom] * 4 + [1.0])

        for title, boxes, classes, scores in rows:
            images.append(
                draw_rotated_boxes(
                    canvas,
                    np.asarray(boxes, dtype=np.float64).reshape(-1, 5) * scale,
                    labels=[class_names[label] for label in classes],
                    scores=scores,
                    colors=[class_color(label) for label in classes],
                )
            )
            captions.append(f"{record['image_id']}: {title}, {len(classes)} objects")

    return make_contact_sheet(images, captions, columns=columns, cell_size=_CELL)


def _enlarged(image: torch.Tensor, image_format: str, size: tuple[int, int]) -> np.ndarray:
    """Convert a model's input (3, H, W) to an RGB picture of a size (width, height)."""
    pixels = image.permute(1, 2, 0).numpy()
    if image_format == "BGR":
        pixels = pixels[..., ::-1]
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_CUBIC)
