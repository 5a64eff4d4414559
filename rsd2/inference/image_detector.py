"""A trained model as a function from images to detections.

Shapes: N detections of one image, h, w its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from torch import nn

from rsd2.data.mappers.extents import Extents, image_extent, note_on_extent
from rsd2.data.mappers.image_mapper import check_channel_order, to_tensor
from rsd2.data.mappers.transforms import RotatedAugInput
from rsd2.structures import from_horizontal

from .sliding_window import Detect, WindowParameters, place_windows


class ImageDetector:
    """A model behind the test-time augmentations of its config.

    Args:
        model: model that maps dataset dicts to ``{"instances": Instances}``; put into eval mode.
        augmentations: augmentations of the test mapper, applied in order.
        image_format: channel order that the model was trained with, "RGB" or "BGR".
        trained_extents: extents of its training images, if it measures boxes in shares of them.

    Raises:
        ValueError: another channel order.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        trained_extents: Extents | None = None,
    ) -> None:
        check_channel_order(image_format, num_channels=3)
        self.model = model.eval()
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.trained_extents = trained_extents

    def note_on_window(self, height: int, width: int) -> str:
        """Say whether windows show another share of the data than the training images did.

        Args:
            height: height of the windows, pixels.
            width: width of the windows, pixels.

        Returns:
            The sentences; empty if nothing is wrong, or known.
        """
        if self.trained_extents is None:
            return ""
        shown = image_extent(self.augmentations, height, width)
        side = round(sum(self.trained_extents) / 2)
        remedy = f"windows of {side} pixels show as much as in training (--window {side})"
        if shown < self.trained_extents[0]:
            remedy += ", filled up where the image is smaller (--padding)"
        what = f"windows of {width} x {height} pixels"
        return note_on_extent(self.trained_extents, shown, what, remedy)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[np.ndarray]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Detect objects in some images together.

        Args:
            images: (h, w, 3) uint8 RGB each, of any sizes; (h, w, B) of scenes with B bands.

        Returns:
            For each image boxes (N, 5) in its own pixels and degrees, scores (N,), classes (N,);
            upright boxes of a model that knows no others are turned into rotated ones.
        """
        inputs = []
        # One input for each image, because the augmentations of a test mapper depend on its size.
        for image in images:
            augmented = RotatedAugInput(image)
            self.augmentations(augmented)
            tensor = to_tensor(augmented.image, self.image_format)
            inputs.append({"image": tensor, "height": image.shape[0], "width": image.shape[1]})

        results = []
        for output in self.model(inputs):
            instances = output["instances"]
            boxes = instances.pred_boxes.tensor
            if boxes.shape[1] == 4:
                boxes = from_horizontal(boxes)
            results.append((boxes, instances.scores, instances.pred_classes))

        return results


def note_on_windows(detect: Detect, height: int, width: int, parameters: WindowParameters) -> str:
    """Say whether the windows of an image show another share of it than the training images did.

    Args:
        detect: the model; only an `ImageDetector` knows its training.
        height: height of the image, pixels, >= 1.
        width: width of the image, pixels, >= 1.
        parameters: size and overlap of the windows.

    Returns:
        The sentences; empty if nothing is wrong, or known.
    """
    if not isinstance(detect, ImageDetector):
        return ""
    x0, y0, x1, y1 = place_windows(height, width, parameters)[0].tolist()
    return detect.note_on_window(y1 - y0, x1 - x0)
