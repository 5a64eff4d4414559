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
from rsd2.structures import from_horizontal


class ImageDetector:
    """A model behind the test-time augmentations of its config.

    Args:
        model: model that maps dataset dicts to ``{"instances": Instances}``; put into eval mode.
        augmentations: augmentations of the test mapper, applied in order.
        image_format: channel order that the model was trained with, "RGB" or "BGR".

    Raises:
        ValueError: another channel order.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        image_format: str = "RGB",
    ) -> None:
        check_channel_order(image_format, num_channels=3)
        self.model = model.eval()
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format

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
