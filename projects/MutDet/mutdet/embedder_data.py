"""Crops that an embedder learns from and is measured on, and the random views of a crop.

Shapes: N crops, V views of a crop, S side of the views, H, W of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rsd2.io.image_io import read_image
from rsd2.ops import roi_align_rotated
from rsd2.structures import corners_to_boxes
from rsd2.synthetic import SceneConfig, draw_scene

from .box_filters import BoxFilters
from .embedder import CropSettings, cut_crops, normalize
from .label_run import Labeller
from .proposals import FelzenszwalbProposals

_FILTERS = BoxFilters(min_side=3.0, max_area_fraction=0.4, duplicate_iou=0.5, top_k=16)


def draw_crops(
    scenes: int, image_size: int, scene_seed: int, *, min_crops: int = 2
) -> tuple[dict[str, Any], ...]:
    """Draw scenes and propose boxes on them; no labels of the scenes are used.

    Args:
        scenes: how many.
        image_size: side of the scenes, pixels.
        scene_seed: of the scenes; take one that no other data have.
        min_crops: how many crops are needed: two of one batch must not be the same.

    Returns:
        A dict for each proposal: ``pixels`` (H, W, 3) uint8 RGB of the whole scene, which its
        proposals share, ``box`` (5,) pixels and degrees, and ``file_name`` for messages.

    Raises:
        ValueError: there are too few proposals.
    """
    labeller, crops = Labeller(FelzenszwalbProposals(), _FILTERS), []
    for index in tqdm(range(scenes), desc="scenes", unit="image"):
        image = draw_scene(SceneConfig(size=image_size), scene_seed, index).image
        crops += [
            {"pixels": image, "box": box, "file_name": f"scene {index}"}
            for box in labeller(image, "")[0].boxes
        ]
    _check_count(len(crops), min_crops, scenes)
    # No list, of which a loader would copy each crop's scene.
    return tuple(crops)


def draw_objects(scenes: int, image_size: int, scene_seed: int) -> tuple[dict[str, Any], ...]:
    """Draw scenes and list their true objects, difficult ones left out.

    Args:
        scenes: how many.
        image_size: side of the scenes, pixels.
        scene_seed: of the scenes.

    Returns:
        A dict for each object, like those of `draw_crops`, with its class as ``label``.

    Raises:
        ValueError: no scene has an object.
    """
    crops = []
    for index in range(scenes):
        scene = draw_scene(SceneConfig(size=image_size), scene_seed, index)
        easy = [item for item in scene.objects if item.difficult == 0]
        polygons = np.array([item.poly for item in easy]).reshape(-1, 4, 2)
        boxes = corners_to_boxes(torch.from_numpy(polygons)).float().numpy()
        crops += [
            {"pixels": scene.image, "box": box, "file_name": f"scene {index}", "label": item.name}
            for box, item in zip(boxes, easy)
        ]
    _check_count(len(crops), 1, scenes)
    return tuple(crops)


def list_crops(dataset: Sequence[dict[str, Any]], *, min_crops: int = 2) -> list[dict[str, Any]]:
    """Make every rotated box of a data set an element of its own.

    Args:
        dataset: dataset dicts whose annotations are in ``XYWHA_ABS``, like pseudo-labels.
        min_crops: how many crops are needed.

    Returns:
        Dicts of ``file_name`` and ``box`` (5,).

    Raises:
        ValueError: there are fewer crops.
    """
    crops = [
        {"file_name": image["file_name"], "box": annotation["bbox"]}
        for image in dataset
        for annotation in image["annotations"]
    ]
    _check_count(len(crops), min_crops, len(dataset))
    return crops


class CropViewMapper:
    """Cuts the views of a crop out of its image."""

    def __init__(self, size: int, *, is_train: bool) -> None:
        """Keep the settings.

        Args:
            size: S, pixels, >= 8.
            is_train: two random views; else one, cut as embeddings are.

        Raises:
            ValueError: ``size`` is too small.
        """
        if size < 8:
            raise ValueError(f"views have at least 8 pixels a side, got size={size}")
        self._size, self._is_train = size, is_train

    def __call__(self, crop: dict[str, Any]) -> dict[str, Any]:
        """Cut the views; all randomness comes from torch's default generator.

        Args:
            crop: ``box`` and either ``pixels`` or ``file_name``; perhaps ``label``.

        Returns:
            ``views`` (V, 3, S, S) float32, normalised; ``file_name`` and ``label`` if given.
        """
        pixels = crop.get("pixels")
        pixels = read_image(crop["file_name"]) if pixels is None else pixels
        box = torch.as_tensor(crop["box"], dtype=torch.float32)

        if self._is_train:
            views = make_views(torch.from_numpy(pixels).permute(2, 0, 1), box, self._size)
        else:
            views = cut_crops(pixels, box[None], CropSettings(self._size))
        return {"views": views, **{k: crop[k] for k in ("file_name", "label") if k in crop}}


def make_views(image: Tensor, box: Tensor, size: int, count: int = 2) -> Tensor:
    """Cut random views of one crop.

    A view is a window around the box: either stretched to a square with the long side along x, as
    embeddings are cut, or a square of any rotation, as the detector meets objects. Size, light,
    contrast and colour vary; some views are grey or mirrored, and all are noisy.

    Args:
        image: (3, H, W) RGB, 0 to 255.
        box: (5,) pixels and degrees.
        size: S, pixels.
        count: V.

    Returns:
        (V, 3, S, S) normalised views.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape)

    # The window.
    cx, cy, w, h, angle = box
    is_square = uniform(0, 1) < 0.5
    side = torch.maximum(w, h)
    turn = torch.where(uniform(0, 1) < 0.5, 180.0, 0.0) + uniform(-15, 15)
    scale = torch.exp(uniform(math.log(1.1), math.log(2.2)))
    rois = torch.stack(
        [
            torch.zeros(count),
            cx + uniform(-0.1, 0.1) * w,
            cy + uniform(-0.1, 0.1) * h,
            (torch.where(is_square, side, w) * scale * torch.exp(uniform(-0.15, 0.15))).clamp(4),
            (torch.where(is_square, side, h) * scale * torch.exp(uniform(-0.15, 0.15))).clamp(4),
            torch.where(is_square, uniform(-180, 180), angle + turn),
        ],
        dim=1,
    )
    views = roi_align_rotated(image[None].float(), rois, size, sampling_ratio=1)

    # Contrast around the view's mean, light of the mean itself, then a factor for each colour.
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    light, contrast_factor = uniform(0.7, 1.3, 1, 1, 1), uniform(0.7, 1.3, 1, 1, 1)
    views = (views - mean) * contrast_factor + mean * light
    views = views * (1 + 0.1 * torch.randn(count, 3, 1, 1))

    grey = views.mean(dim=1, keepdim=True).expand_as(views)
    views = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, grey, views)
    views = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, views.flip(3), views)
    return normalize(views + 4 * torch.randn(views.shape))


def _check_count(crops: int, needed: int, images: int) -> None:
    if crops < needed:
        raise ValueError(
            f"{crops} crops of {images} images cannot fill a batch of {needed}; take more images, "
            "or lower dataloader.train.total_batch_size"
        )
