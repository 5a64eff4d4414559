"""Faster R-CNN as a graph of fixed sizes: suppressed regions stay, with a score of zero.

Detectron2's own forward keeps a varying number of boxes and reads values of tensors, which
cannot be traced. Here the first stage keeps a fixed number of regions, and every region is pooled
from every level, of which only its own counts.

Shapes: B images, H, W size of the input, R regions of an image, K classes, A anchors of a level.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, RROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms

from .description import ExportError
from .graphs import DetectionGraph


class FasterRcnnGraph(DetectionGraph):
    """Detectron2's ``GeneralizedRCNN`` from pixels to its regions, before the last NMS.

    Args:
        model: detector with an ``RPN`` and ``StandardROIHeads`` of upright boxes.
        image_format: see `DetectionGraph`.

    Raises:
        ExportError: the model is no ``GeneralizedRCNN``, or has other stages.
    """

    model_class = GeneralizedRCNN
    outputs = "regions"
    output_names = ("boxes", "scores")
    any_batch = False
    model: GeneralizedRCNN

    def __init__(self, model: nn.Module, image_format: str = "RGB") -> None:
        super().__init__(model, image_format)

        # Both raise for a stage that cannot be exported, so that a user learns it before the trace.
        self._proposal_generator()
        self._predictor()

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self._heads().num_classes

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Detect objects in the regions of the first stage.

        Args:
            pixels: (B, 3, H, W) RGB, 0-255, uint8 or floating.

        Returns:
            boxes (B, R, 4 K) or (B, R, 4) of a class-agnostic head, x0, y0, x1, y1 in pixels
            of the input, and scores (B, R, K + 1), whose last column is the background's; scores
            are 0 in places that no region has taken.
        """
        height, width = pixels.shape[-2:]
        size = (height, width)
        features = self.model.backbone(self._pad(self.normalize(pixels)))

        generator, heads = self._proposal_generator(), self._heads()
        # Channels go last, so that the logits line up with the anchors of their level.
        levels = [features[name] for name in generator.in_features]
        logits, deltas = generator.rpn_head(levels)
        logits = [_last(x).flatten(1) for x in logits]
        deltas = [_last(x).unflatten(3, (-1, 4)).flatten(1, 3) for x in deltas]
        anchors = generator.anchor_generator(levels)

        boxes, scores = [], []
        # The tracer unrolls this loop, so the number of images must be fixed (`any_batch`).
        for image in range(pixels.shape[0]):
            own = [(x.tensor, y[image], z[image]) for x, y, z in zip(anchors, logits, deltas)]
            regions, is_taken = self._propose(own, size)
            maps = [features[name][image : image + 1] for name in heads.box_in_features]
            found = self._classify(maps, regions, size)
            boxes.append(found[0])
            scores.append(found[1] * is_taken[:, None])

        return torch.stack(boxes), torch.stack(scores)

    def finishing(self) -> dict[str, Any]:
        """Return the arguments of Detectron2's ``fast_rcnn_inference_single_image``."""
        predictor = self._predictor()
        return {
            "score_thresh": predictor.test_score_thresh,
            "nms_thresh": predictor.test_nms_thresh,
            "topk_per_image": predictor.test_topk_per_image,
        }

    def _proposal_generator(self) -> RPN:
        """Return the first stage, and raise if it cannot be exported."""
        generator = self.model.proposal_generator
        if not isinstance(generator, RPN):
            raise ExportError(
                f"a {type(self.model).__name__} with {type(generator).__name__} cannot be "
                "exported; its proposal generator must be an RPN"
            )
        return generator

    def _heads(self) -> StandardROIHeads:
        """Return the second stage, and raise if it cannot be exported."""
        heads = self.model.roi_heads
        # RROIHeads inherits from StandardROIHeads, but pools rotated regions.
        if not isinstance(heads, StandardROIHeads) or isinstance(heads, RROIHeads):
            raise self._unfit_heads()
        return heads

    def _predictor(self) -> FastRCNNOutputLayers:
        """Return the last layers of the second stage, and raise if they cannot be exported."""
        predictor = self._heads().box_predictor
        if not isinstance(predictor, FastRCNNOutputLayers):
            raise self._unfit_heads()
        return predictor

    def _unfit_heads(self) -> ExportError:
        """Make the error for a second stage that cannot be exported."""
        return ExportError(
            f"a {type(self.model).__name__} with {type(self.model.roi_heads).__name__} cannot be "
            "exported; it must have StandardROIHeads of upright boxes with FastRCNNOutputLayers"
        )

    def _pad(self, images: torch.Tensor) -> torch.Tensor:
        """Pad images with zeros below and to the right, as Detectron2's ``ImageList`` does."""
        backbone = self.model.backbone
        constraints = backbone.padding_constraints
        multiple = max(constraints.get("size_divisibility", backbone.size_divisibility), 1)
        square = constraints.get("square_size", 0)

        height, width = images.shape[-2:]
        if square:
            return F.pad(images, (0, max(square - width, 0), 0, max(square - height, 0)))
        # Negative modulo: what is missing to the next multiple.
        return F.pad(images, (0, -width % multiple, 0, -height % multiple))

    def _propose(
        self,
        levels: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the first stage on one image.

        Args:
            levels: anchors (A, 4), logits (A,) and deltas (A, 4) of each level.
            size: (height, width) of the image.

        Returns:
            regions (R, 4) by falling logit, and which places are taken (R,).
        """
        generator = self._proposal_generator()
        height, width = size
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)

        boxes, scores = [], []
        for anchors, logits, deltas in levels:
            best, index = logits.topk(min(int(generator.pre_nms_topk[False]), logits.shape[0]))
            decoded = generator.box2box_transform.apply_deltas(deltas[index], anchors[index])
            decoded = torch.minimum(decoded.clamp(min=0), limit)

            # An empty box has an IoU of 0 with all others, so that it suppresses none.
            sides = decoded[:, 2:] - decoded[:, :2]
            is_kept = torch.zeros_like(best, dtype=torch.int64)
            kept = nms(decoded, best, generator.nms_thresh)
            is_kept = is_kept.index_fill(0, kept, 1).bool()
            is_kept = is_kept & (sides > generator.min_box_size).all(dim=1)

            boxes.append(decoded)
            scores.append(best.masked_fill(~is_kept, -torch.inf))

        # The best of all levels together, as Detectron2 keeps them after the NMS of each level.
        all_scores = torch.cat(scores)
        count = min(int(generator.post_nms_topk[False]), all_scores.shape[0])
        best, index = all_scores.topk(count)
        return torch.cat(boxes)[index], best > -torch.inf

    def _classify(
        self, maps: list[torch.Tensor], regions: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the second stage on one image.

        Args:
            maps: features (1, C, h, w) of each level.
            regions: regions (R, 4) of `_propose`.
            size: (height, width) of the image.

        Returns:
            boxes (R, 4 K or 4) and scores (R, K + 1).
        """
        heads, predictor = self._heads(), self._predictor()
        predictions = predictor(heads.box_head(pool(heads.box_pooler, maps, regions)))

        proposals = Instances(size, proposal_boxes=Boxes(regions))
        (boxes,) = predictor.predict_boxes(predictions, [proposals])
        (scores,) = predictor.predict_probs(predictions, [proposals])
        return boxes, scores


def _last(maps: torch.Tensor) -> torch.Tensor:
    """Put the channels of (B, C, h, w) last, in memory too.

    Always a copy: a map that happens to lie so in memory while it is traced would become a view,
    which does not fit the strides that the exporter assumes.
    """
    return maps.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)


def pool(pooler: ROIPooler, maps: list[torch.Tensor], regions: torch.Tensor) -> torch.Tensor:
    """Pool each region from its level, without sorting the regions by level.

    Args:
        pooler: Detectron2's pooler of the second stage.
        maps: features (1, C, h, w) of each level.
        regions: (R, 4) x0, y0, x1, y1 in pixels.

    Returns:
        (R, C, side, side) features, the same as ``pooler`` returns.
    """
    rows = F.pad(regions, (1, 0))  # the index of the image, 0
    if len(maps) == 1:
        return pooler.level_poolers[0](maps[0], rows)

    levels = assign_boxes_to_levels(
        [Boxes(regions)],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )

    def pool_level(index: int) -> torch.Tensor:
        is_here = levels == index
        # A region of another level shrinks to a point there, which costs next to nothing.
        pooled = pooler.level_poolers[index](maps[index], rows * is_here[:, None])
        return pooled * is_here[:, None, None, None]

    return functools.reduce(torch.add, map(pool_level, range(len(maps))))
