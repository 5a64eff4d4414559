"""Crops that an embedder learns from and is measured on, and the random views of a crop.

Shapes: N crops, V views of a crop, S side of the views, H, W of the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from rsd2.io.image_io import read_image
from rsd2.io.worker_pool import run_in_processes
from rsd2.ops import roi_align_rotated
from rsd2.structures import corners_to_boxes
from rsd2.synthetic import SceneConfig, draw_scene

from .box_filters import BoxFilters
from .embedder import CropSettings, cut_crops, normalize
from .label_run import Labeller
from .proposals import FelzenszwalbProposals

_FILTERS = BoxFilters(min_side=3.0, max_area_fraction=0.4, duplicate_iou=0.5, top_k=16)


class _Scene(NamedTuple):
    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (n, 5) float32, pixels and degrees
    labels: list[str]  # one for each box, or none at all


class SceneCrops(Dataset):
    """Boxes on scenes in memory, each box an element."""

    def __init__(self, scenes: Sequence[_Scene]) -> None:
        """Keep the scenes.

        Args:
            scenes: image, boxes and labels of each.
        """
        self._scenes = scenes
        self._places = [(i, k) for i, scene in enumerate(scenes) for k in range(len(scene.boxes))]

    def __len__(self) -> int:
        """Return N."""
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one crop.

        Args:
            index: in [0, N).

        Returns:
            ``pixels`` (H, W, 3) uint8 RGB of the whole scene, ``box`` (5,) pixels and degrees,
            ``file_name`` for messages, and ``label`` where the boxes have labels.
        """
        scene_index, box_index = self._places[index]
        scene = self._scenes[scene_index]
        crop = {
            "pixels": scene.pixels,
            "box": scene.boxes[box_index],
            "file_name": f"scene {scene_index}",
        }
        return {**crop, "label": scene.labels[box_index]} if scene.labels else crop


def draw_crops(
    scenes: int, image_size: int, scene_seed: int, *, min_crops: int = 2, num_workers: int = 0
) -> SceneCrops:
    """Draw scenes and propose boxes on them; no labels of the scenes are used.

    Args:
        scenes: how many, >= 1.
        image_size: side of the scenes, pixels.
        scene_seed: of the scenes; take one that no other data have.
        min_crops: how many crops are needed: two of one batch must not be the same.
        num_workers: processes that draw; 0 draws in this one.

    Returns:
        The proposals.

    Raises:
        ValueError: ``scenes`` is too small, or there are too few proposals.
    """
    return _draw(_draw_proposals, scenes, image_size, scene_seed, min_crops, num_workers)


def draw_objects(
    scenes: int, image_size: int, scene_seed: int, *, num_workers: int = 0
) -> SceneCrops:
    """Draw scenes and list their true objects, difficult ones left out, with their classes.

    Args:
        scenes: how many, >= 1.
        image_size: side of the scenes, pixels.
        scene_seed: of the scenes.
        num_workers: processes that draw; 0 draws in this one.

    Returns:
        The objects, the names of their classes as labels.

    Raises:
        ValueError: ``scenes`` is too small, or no scene has an object.
    """
    return _draw(_draw_truth, scenes, image_size, scene_seed, 1, num_workers)


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


def _draw(
    work: Callable[[tuple[int, int, int]], _Scene],
    count: int,
    image_size: int,
    seed: int,
    min_crops: int,
    num_workers: int,
) -> SceneCrops:
    jobs = [(image_size, seed, index) for index in range(count)]
    scenes = run_in_processes(work, jobs, num_workers)
    crops = SceneCrops(list(tqdm(scenes, total=count, desc="scenes", unit="image")))
    _check_count(len(crops), min_crops, count)
    return crops


def _draw_proposals(job: tuple[int, int, int]) -> _Scene:
    image_size, seed, index = job
    image = draw_scene(SceneConfig(size=image_size), seed, index).image
    labels, _ = Labeller(FelzenszwalbProposals(), _FILTERS)(image, "")
    return _Scene(image, labels.boxes, [])


def _draw_truth(job: tuple[int, int, int]) -> _Scene:
    image_size, seed, index = job
    scene = draw_scene(SceneConfig(size=image_size), seed, index)
    easy = [item for item in scene.objects if item.difficult == 0]
    polygons = np.array([item.poly for item in easy]).reshape(-1, 4, 2)
    boxes = corners_to_boxes(torch.from_numpy(polygons)).float().numpy()
    return _Scene(scene.image, boxes, [item.name for item in easy])


def _check_count(crops: int, needed: int, images: int) -> None:
    if crops < needed:
        raise ValueError(
            f"{crops} crops of {images} images cannot fill a batch of {needed}; take more images, "
            "or lower dataloader.train.total_batch_size"
        )
