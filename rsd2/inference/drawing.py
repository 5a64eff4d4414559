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
from rsd2.structures.rotated_boxes import from_horizontal

_CELL = 384
_SIDE_TO_NAME = 20
"""Smallest usual side of objects in the sheet, pixels, whose names and scores hide none of them."""


class InputMapper(Protocol):
    """A mapper of a test loader, which says in what channel order it gives images."""

    image_format: str

    def __call__(self, dataset_dict: dict[str, Any], /) -> dict[str, Any]:
        """Turn a dataset dict into the input of a model.

        It has ``image`` (3, H, W), or ``frames`` (T, 3, H, W), key frame first.
        """


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

    Where the objects are small, only their boxes are drawn, in the colours of their classes.

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
        labels = [a["category_id"] for a in truth]
        rows = [("truth", _boxes_of(truth), labels, None)]
        for title, model in models.items():
            with torch.no_grad():
                # One image at a time: mappers may give images of different sizes.
                found = model([inputs])[0]["instances"].to("cpu")
            found = found[found.scores >= threshold]
            boxes, classes = _as_rotated(found.pred_boxes.tensor), found.pred_classes.tolist()
            rows.append((title, boxes, classes, found.scores.tolist()))

        size = (record["width"], record["height"])
        # Small images are enlarged, so that their boxes and captions stay readable.
        zoom = max(1, round(_CELL / max(size)))
        canvas = cv2.resize(
            _picture_of(inputs, mapper),
            (size[0] * zoom, size[1] * zoom),
            interpolation=cv2.INTER_CUBIC,
        )
        scale = np.array([zoom] * 4 + [1.0])

        for title, boxes, classes, scores in rows:
            sides = np.sqrt(boxes[:, 2] * boxes[:, 3]) * _CELL / max(size)
            is_named = len(sides) > 0 and np.median(sides) >= _SIDE_TO_NAME
            images.append(
                draw_rotated_boxes(
                    canvas,
                    boxes * scale,
                    labels=[class_names[label] for label in classes] if is_named else None,
                    scores=scores if is_named else None,
                    colors=[class_color(label) for label in classes],
                )
            )
            captions.append(f"{record['image_id']}: {title}, {len(classes)} objects")

    return make_contact_sheet(images, captions, columns=columns, cell_size=_CELL)


def _boxes_of(annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Stack the boxes of annotations, rotated or upright, as (N, 5) rotated ones."""
    # Here and not above, because detections are drawn without Detectron2, too.
    from detectron2.structures import BoxMode

    boxes = [
        annotation["bbox"]
        if annotation["bbox_mode"] == BoxMode.XYWHA_ABS
        else BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        for annotation in annotations
    ]
    return _as_rotated(torch.tensor(boxes, dtype=torch.float64))


def _as_rotated(boxes: torch.Tensor) -> np.ndarray:
    """Convert (N, 5) rotated or (N, 4) upright boxes x0, y0, x1, y1 to (N, 5) rotated ones."""
    if boxes.numel() == 0:
        return np.zeros((0, 5))
    return (boxes if boxes.shape[1] == 5 else from_horizontal(boxes)).numpy().astype(np.float64)


def _picture_of(inputs: Mapping[str, Any], mapper: Any) -> np.ndarray:
    """Convert a model's input to an RGB picture (H, W, 3); of a clip, its key frame.

    Only a mapper of clips normalises, and has the mean and deviation that it used.
    """
    pixels = inputs["image"] if "image" in inputs else inputs["frames"][0]
    pixels = pixels.permute(1, 2, 0).numpy()
    if inputs.get("normalized"):
        pixels = pixels * mapper.pixel_std + mapper.pixel_mean
    if mapper.image_format == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255), dtype=np.uint8)
