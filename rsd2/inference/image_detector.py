"""A trained model as a function from images to detections.

Shapes: N detections of one image, h, w its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from torch import nn

from rsd2.data.mappers.image_mapper import check_channel_order, to_tensor
from rsd2.data.mappers.transforms import RotatedAugInput
from rsd2.data.mappers.views import Views, note_on_view, view_of
from rsd2.structures import from_horizontal

from .sliding_window import Detect, WindowParameters, place_windows

_WINDOW, _OVERLAP = 1024, 200


class ImageDetector:
    """A model behind the test-time augmentations of its config.

    Args:
        model: model that maps dataset dicts to ``{"instances": Instances}``; put into eval mode.
        augmentations: augmentations of the test mapper, applied in order.
        image_format: channel order that the model was trained with, "RGB" or "BGR".
        trained: what its training images showed; None if that is unknown.
        in_shares: whether it measures boxes in shares of its image, not in pixels.

    Raises:
        ValueError: another channel order.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
        trained: Views | None = None,
        in_shares: bool = False,
    ) -> None:
        check_channel_order(image_format, num_channels=3)
        self.model = model.eval()
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.trained, self.in_shares = trained, in_shares
        # Most images have windows of one size, and a blank image of it need be augmented only once.
        self._notes: dict[tuple[int, int], str] = {}

    @property
    def usual_windows(self) -> tuple[int, int]:
        """Window and overlap that show objects as large as in training: 1024 and 200 if they do."""
        if self.trained is None or not self.note_on_window(_WINDOW, _WINDOW):
            return _WINDOW, _OVERLAP
        side = round(self.trained.extents[1])
        return side, min(_OVERLAP, side // 4)

    def note_on_window(self, height: int, width: int) -> str:
        """Say whether objects in windows have other sizes for the model than in training.

        Args:
            height: height of the windows, pixels.
            width: width of the windows, pixels.

        Returns:
            The sentences; empty if nothing is wrong, or known.
        """
        if self.trained is None:
            return ""
        if (height, width) not in self._notes:
            self._notes[height, width] = self._compare_window(self.trained, height, width)
        return self._notes[height, width]

    def _compare_window(self, trained: Views, height: int, width: int) -> str:
        """Compare what windows show with what training images showed."""
        seen = view_of(self.augmentations, height, width)
        side = round(trained.extents[1])
        remedy = f"windows of {side} pixels show them as in training (--window {side})"
        if seen.extent < trained.extents[0]:
            remedy += ", filled up where the image is smaller (--padding)"
        what = f"windows of {width} x {height} pixels"
        return note_on_view(trained, seen, self.in_shares, what, remedy)

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
    """Say whether objects in the windows of an image have other sizes than in training.

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
