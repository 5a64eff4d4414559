"""Faster R-CNN with supervised attention in its neck.

Shapes: H, W height and width of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, GeneralizedRCNN
from torch import nn

from rsd2.projects.bottom_heavy.attention_supervision import AttentionLoss

from .averaged_scales import detect_at_scales
from .sspnet import ATTENTION_PREFIX


@META_ARCH_REGISTRY.register()
class AttentionRCNN(GeneralizedRCNN):
    """Detectron2's generalized R-CNN with a loss on the attention maps of its pyramid.

    Source: SSPNet (arXiv 2107.01548), the detector of the bottom-heavy backbones (arXiv
    2303.11267). With an ordinary FPN and no attention loss it is Faster R-CNN itself.

    Args:
        backbone: feature pyramid; `SSPNet` also returns attention maps.
        proposal_generator: proposal network that works on the pyramid's levels.
        roi_heads: heads that work on the pyramid's levels.
        attention_loss: loss of the attention maps; None trains them by detection alone.
        pixel_mean: mean of each channel, 0-255, in the order of ``input_format``.
        pixel_std: standard deviation of each channel, 0-255.
        input_format: channel order of the images.
        test_sizes: (short, long) side in pixels of each scale at which an image is tested, see
            `detect_at_scales`; empty tests the image as the mapper hands it over.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        attention_loss: AttentionLoss | None = None,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        input_format: str = "RGB",
        test_sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
        )
        self.attention_loss = attention_loss
        self.test_sizes = tuple(test_sizes)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute the losses in training, the detections otherwise.

        Args:
            batched_inputs: dicts with ``image`` (3, H, W) 0-255; ``instances`` with ``gt_boxes``
                (``Boxes``, pixels of that image) and ``gt_classes`` in training; ``height`` and
                ``width`` of the original image (default: the size of ``image``).

        Returns:
            Training: dict of scalar losses, already weighted. Otherwise: a list of
            ``{"instances": Instances}`` in the frame of the original image.

        Raises:
            ValueError: the attention loss is on but the backbone returns no attention, or a
                label is not a class of the model.
        """
        if not self.training:
            if self.test_sizes:
                return [detect_at_scales(self, one, self.test_sizes) for one in batched_inputs]
            return self.inference(batched_inputs)

        images = self.preprocess_image(batched_inputs)
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        # A label out of range would stop a GPU with an assertion far from its cause.
        self._check_labels(batched_inputs)

        features = self.backbone(images.tensor)
        proposals, losses = self.proposal_generator(images, features, instances)
        _, head_losses = self.roi_heads(images, features, proposals, instances)
        losses = {**losses, **head_losses}
        if self.attention_loss is not None:
            # SSPNet returns its attention logits beside the levels P2 to P6, under names of their
            # own.
            maps = [v for name, v in features.items() if name.startswith(ATTENTION_PREFIX)]
            if not maps:
                raise ValueError(
                    f"{type(self.backbone).__name__} returns no attention maps; use SSPNet, or set "
                    "model.attention_loss=null"
                )
            boxes = [x.gt_boxes.tensor for x in instances]
            losses.update(self.attention_loss(maps, boxes))

        return losses

    def _check_labels(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Validate the labels against the number of outputs of the head."""
        labels = torch.cat([x["instances"].gt_classes for x in batched_inputs])
        num_classes = self.roi_heads.num_classes
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise ValueError(
                f"a label is {int(wrong[0])} but the model has {num_classes} classes, 0 to "
                f"{num_classes - 1}; set model.roi_heads.num_classes to the number of classes of "
                "the dataset"
            )
