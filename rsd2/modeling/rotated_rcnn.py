"""Faster R-CNN of rotated boxes, built on Detectron2's rotated proposal network and heads.

Detectron2 brings ``RotatedAnchorGenerator``, ``RRPN`` and ``RROIHeads``; this module adds what they
lack: matching in bounded memory, a box code that gives equal rectangles equal codes, and a
meta-architecture that refuses wrong labels and gives canonical boxes.

Shapes: N boxes, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.structures import Instances, RotatedBoxes

from rsd2.structures import canonicalize, wrap_angle

from .anchor_sampling import BoundedMemoryRPN


class BoundedMemoryRRPN(BoundedMemoryRPN, RRPN):
    """Detectron2's rotated proposal network, but it matches anchors with boxes in portions.

    Source: RRPN (arXiv 1703.01086). It takes the arguments of Detectron2's ``RPN``; its
    ``anchor_matcher`` must be a `MinimumQualityMatcher`, and its ``head`` must have ``box_dim=5``.
    """


class RectangleTransform(Box2BoxTransformRotated):
    """Code of a rotated box relative to another one; equal rectangles get equal codes.

    It differs from Detectron2's ``Box2BoxTransformRotated`` in two points. First, a rectangle has
    four names (half turns, and a quarter turn with exchanged sides); the code takes the name that
    is nearest to the source, so that a box at 89 degrees is near an anchor at -90. Second, shifts
    are along the sides of the source (arXiv 1812.00155, equation 1): features pooled along those
    sides cannot tell how the sides lie in the image.

    Args:
        weights: factors of the shifts along w and h, of the logarithms of both sides, and of the
            angle in radians.
        scale_clamp: largest logarithm of the growth of a side.
    """

    def __init__(
        self,
        weights: Sequence[float],
        scale_clamp: float = math.log(1000.0 / 16),
    ) -> None:
        super().__init__(tuple(weights), scale_clamp)

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Encode boxes.

        Args:
            src_boxes: (N, 5) with sides > 0, anchors or proposals.
            target_boxes: (N, 5) with sides > 0.

        Returns:
            (N, 5) codes.

        Raises:
            ValueError: a side of a source is not positive.
        """
        if not bool((src_boxes[:, 2:4] > 0).all()):
            raise ValueError("an anchor or proposal has a side that is not positive")

        shift = target_boxes[:, :2] - src_boxes[:, :2]
        # Shifts in units of the source's sides, so that the loss weighs small and large boxes
        # alike.
        along, across = _turned(shift[:, 0], shift[:, 1], src_boxes[:, 4], to_box=True)
        offsets = torch.stack([along, across], dim=1) / src_boxes[:, 2:4]

        # Only the exchange of the sides needs a comparison; wrap_angle settles the half turns.
        names = []
        for sides, quarter in ((target_boxes[:, 2:4], 0.0), (target_boxes[:, [3, 2]], 90.0)):
            growth = torch.log(sides / src_boxes[:, 2:4])
            turn = wrap_angle(target_boxes[:, 4] + quarter - src_boxes[:, 4])
            names.append(torch.cat([growth, torch.deg2rad(turn)[:, None]], dim=1))

        as_given, exchanged = names
        nearer = exchanged.abs().sum(dim=1) < as_given.abs().sum(dim=1)
        shapes = torch.where(nearer[:, None], exchanged, as_given)
        return torch.cat([offsets, shapes], dim=1) * shapes.new_tensor(self.weights)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Decode boxes.

        Args:
            deltas: (N, 5 k) codes, k codes for each source.
            boxes: (N, 5) sources.

        Returns:
            (N, 5 k) boxes with angles in [-90, 90), not canonical.
        """
        # Class-specific heads give k codes for each source, side by side.
        codes = deltas.view(len(deltas), deltas.shape[1] // 5, 5) / deltas.new_tensor(self.weights)
        source = boxes.to(deltas.dtype)[:, None]
        offsets = codes[..., :2] * source[..., 2:4]
        x, y = _turned(offsets[..., 0], offsets[..., 1], source[..., 4], to_box=False)

        # An untrained head may predict any size, so the clamp keeps exp finite.
        sides = source[..., 2:4] * codes[..., 2:4].clamp(max=self.scale_clamp).exp()
        angles = wrap_angle(source[..., 4] + torch.rad2deg(codes[..., 4]))

        decoded = torch.stack(
            [source[..., 0] + x, source[..., 1] + y, sides[..., 0], sides[..., 1], angles], dim=-1
        )
        return decoded.view_as(deltas)


def _turned(
    x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor, *, to_box: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate shifts from the image's axes to the box's, or back; degrees, counter-clockwise."""
    radians = torch.deg2rad(angle)

    cos, sin = radians.cos(), radians.sin()
    # y points down in images, which swaps the signs of the sines.
    if to_box:
        return cos * x - sin * y, sin * x + cos * y
    return cos * x + sin * y, cos * y - sin * x


@META_ARCH_REGISTRY.register()
class RotatedFasterRCNN(GeneralizedRCNN):
    """Detectron2's two-stage detector for rotated boxes.

    It takes dataset dicts as `RotatedDeformableDETR` does and gives canonical boxes.

    Args:
        backbone: Detectron2 backbone.
        proposal_generator: a `BoundedMemoryRRPN`.
        roi_heads: Detectron2's ``RROIHeads``.
        pixel_mean: mean of each channel, 0-255, in the order of ``input_format``.
        pixel_std: standard deviation of each channel, 0-255, in the same order.
        input_format: order of the channels, for drawings during training.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, detections otherwise.

        Args:
            batched_inputs: dicts with ``image`` (3, H, W) 0-255; in training ``instances`` with
                ``gt_boxes`` (RotatedBoxes, pixels of that image) and ``gt_classes``; ``height`` and
                ``width`` of the original image (default: of ``image``).

        Returns:
            Training: dict of scalar losses. Otherwise: a list of ``{"instances": Instances}`` with
            canonical ``pred_boxes`` in the frame of the original image, ``scores``,
            ``pred_classes``.

        Raises:
            ValueError: a label is not a class of the model.
            FloatingPointError: the proposals are no longer finite in training.
        """
        if self.training:
            self._check_labels([x["instances"].gt_classes for x in batched_inputs])
        return super().forward(batched_inputs)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Detect, as Detectron2's ``GeneralizedRCNN.inference``, with canonical boxes.

        Args:
            batched_inputs: see `forward`.
            detected_instances: boxes to classify without new proposals, or None.
            do_postprocess: bring the boxes into the frame of the original images.

        Returns:
            ``{"instances": Instances}`` of each image, or without postprocessing the instances.
        """
        results = super().inference(batched_inputs, detected_instances, do_postprocess)
        for result in results:
            # Detectron2 leaves w as either side and any angle, so one rectangle would have
            # several boxes.
            instances = result["instances"] if do_postprocess else result
            instances.pred_boxes = RotatedBoxes(canonicalize(instances.pred_boxes.tensor))
        return results

    def _check_labels(self, labels: Sequence[torch.Tensor]) -> None:
        # The label after the last class would silently count as background.
        num_classes = self.roi_heads.num_classes
        for label in torch.cat(list(labels)).unique().tolist():
            if not 0 <= label < num_classes:
                raise ValueError(
                    f"a label is {label} but the model has {num_classes} classes, 0 to "
                    f"{num_classes - 1}; set model.roi_heads.num_classes to the number of classes "
                    "of the dataset"
                )
