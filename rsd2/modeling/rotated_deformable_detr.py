"""The rotated two-stage deformable DETR (ARS-DETR with denoising) as a meta-architecture.

Shapes: B images, S tokens of all levels together, Q queries, C channels, L levels.

Boxes inside the detector are (cx, cy, w, h) divided by the image's long side, on both axes: one
unit is the same number of pixels in x and y, so that a rotated box stays a rotated box in images
that are not square. Angles are in degrees, counter-clockwise on screen, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList, Instances
from torch import nn
from torch.nn import functional as F

from rsd2.layers import SinePositionEncoding
from rsd2.structures import canonicalize

from .angle_coder import AngleCoder
from .criterion import SetCriterion, global_normalizers
from .denoising import DenoisingBatch, DenoisingQueries
from .heads import DetectionHeads
from .matcher import Predictions, Targets
from .outputs import (
    Assignment,
    DetectorOutputs,
    EncodedImages,
    ImageGeometry,
    Normalizers,
    Proposals,
)
from .postprocessing import DetectionPostprocessor
from .proposals import TwoStageProposals, token_centers
from .quirks import NO_QUIRKS, DetectorQuirks
from .transformer import DeformableEncoder, RotatedDeformableDecoder


@META_ARCH_REGISTRY.register()
class RotatedDeformableDETR(nn.Module):
    """Rotated two-stage deformable DETR.

    Source: ARS-DETR (arXiv 2303.04989) with contrastive denoising; the detector that MutDet
    (ECCV 2024) pre-trains.

    Args:
        backbone: Detectron2 backbone.
        neck: maps its features to L levels of C channels.
        encoder: encoder over the tokens of all levels.
        decoder: decoder over the queries.
        num_classes: K.
        num_queries: Q.
        embed_dim: C.
        num_levels: L.
        criterion: matching and losses.
        max_detections: detections kept per image, of queries x classes.
        score_threshold: lowest score of a detection that is kept.
        nms_threshold: rotated NMS per class at inference; None for none, as in the paper.
        num_denoising_queries: wanted denoising positives per image; 0 switches denoising off.
        label_noise: see `DenoisingQueries`.
        box_noise: see `DenoisingQueries`.
        angle_noise: see `DenoisingQueries`.
        quirks: ``boxes_per_axis`` and the quirks of denoising; decoder and matcher have theirs.
        pixel_mean: mean per channel, 0-255, RGB.
        pixel_std: standard deviation per channel, 0-255, RGB.
    """

    # Images must show as much of their data as in training, see `rsd2.data.mappers.views`.
    measures_in_shares: ClassVar[bool] = True
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: nn.Module,
        encoder: DeformableEncoder,
        decoder: RotatedDeformableDecoder,
        num_classes: int,
        criterion: SetCriterion,
        num_queries: int = 300,
        embed_dim: int = 256,
        num_levels: int = 4,
        max_detections: int = 300,
        score_threshold: float = 0.0,
        nms_threshold: float | None = None,
        num_denoising_queries: int = 100,
        label_noise: float = 0.25,
        box_noise: float = 0.4,
        angle_noise: float = 0.02,
        quirks: DetectorQuirks = NO_QUIRKS,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")

        self.angle_coder = AngleCoder()
        self.backbone, self.neck = backbone, neck
        self.encoder, self.decoder = encoder, decoder
        self.num_classes, self.num_levels = num_classes, num_levels

        self.position_encoding = SinePositionEncoding(embed_dim)
        self.level_embed = nn.Parameter(torch.randn(num_levels, embed_dim))
        self.proposals = TwoStageProposals(embed_dim, num_queries)
        self.query_embed = nn.Embedding(num_queries, embed_dim)
        self.heads = DetectionHeads(num_classes, len(decoder.layers), embed_dim, self.angle_coder)

        self.denoising = None
        if num_denoising_queries > 0:
            self.denoising = DenoisingQueries(
                num_classes,
                embed_dim,
                num_denoising_queries,
                label_noise,
                box_noise,
                angle_noise,
                quirks,
            )

        self.criterion = criterion
        self.postprocessor = DetectionPostprocessor(
            self.angle_coder, max_detections, score_threshold, nms_threshold
        )

        self.quirks = quirks
        # Not persistent: a checkpoint from elsewhere has no such keys.
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        """Device of the model's buffers."""
        return self.pixel_mean.device

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images (3, H, W) and pad them to one size, with zeros, bottom and right."""
        images = [
            (x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs
        ]
        return ImageList.from_tensors(images, max(self.backbone.size_divisibility, 32))

    def image_geometry(self, images: ImageList) -> ImageGeometry:
        """Compute the scales of a batch."""
        # (width, height), because boxes are (x, y).
        padded = torch.tensor(images.tensor.shape[:-3:-1], device=self.device)
        sizes = torch.tensor([(w, h) for h, w in images.image_sizes], device=self.device).float()

        if self.quirks.boxes_per_axis:
            scale, output_scale = sizes, sizes[:, :1].expand(-1, 2)
        else:
            scale = sizes.max(dim=1, keepdim=True).values.expand(-1, 2)
            output_scale = scale

        return ImageGeometry(
            scale.repeat(1, 2), output_scale.repeat(1, 2), scale / padded, sizes / padded
        )

    def prepare_targets(self, instances: list[Instances], geometry: ImageGeometry) -> list[Targets]:
        """Bring ``gt_boxes`` (pixels) and ``gt_classes`` into the units of the detector."""
        targets = []
        for instance, scale in zip(instances, geometry.box_scale):
            # The coder needs w as the long side.
            boxes = canonicalize(instance.gt_boxes.tensor.to(self.device).float())
            labels = instance.gt_classes.to(self.device)

            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            if len(wrong):
                raise ValueError(
                    f"a label is {int(wrong[0])} but the model has {self.num_classes} classes, "
                    f"0 to {self.num_classes - 1}; set model.num_classes to the number of classes "
                    "of the dataset"
                )

            # Encoded before scaling: the aspect ratio that counts is the one in pixels.
            angle_targets = self.angle_coder.encode(boxes)
            normalized = torch.cat([boxes[:, :4] / scale, boxes[:, 4:]], dim=1)

            targets.append(Targets(labels, normalized, angle_targets))
        return targets

    def backbone_features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute feature maps by name from normalised, padded images (B, 3, H, W)."""
        return self.backbone(images)

    def encode(self, images: ImageList) -> EncodedImages:
        """Run backbone, neck and encoder.

        Args:
            images: normalised and padded. One size may stand for all images of the tensor, whose
                number is then left open, as a graph for other programs needs it.
        """
        levels = self.neck(self.backbone_features(images.tensor))
        geometry = self.image_geometry(images)
        padded_size = images.tensor.shape[-2:]
        mask = padding_of(images.image_sizes, padded_size, self.device)

        tokens, positions, masks, shapes = [], [], [], []
        for level, features in enumerate(levels):
            shape = (features.shape[2], features.shape[3])
            # Nearest neighbour: a token is padding or image, never a share of both.
            level_mask = F.interpolate(mask[:, None].float(), size=shape)[:, 0].bool()
            encoding = self.position_encoding(level_mask).to(self.level_embed.dtype)
            encoding = encoding.flatten(1, 2) + self.level_embed[level]

            tokens.append(features.flatten(2).transpose(1, 2))
            positions.append(encoding)
            masks.append(level_mask.flatten(1))
            shapes.append(shape)

        # Decided by the sizes, not by the masks' values: asking those would stop a GPU, and an
        # exported graph could not branch on them.
        if not has_padded_tokens(images.image_sizes, padded_size, shapes):
            padding_mask = None
        else:
            padding_mask = torch.cat(masks, dim=1)

        memory = self.encoder(
            torch.cat(tokens, dim=1),
            torch.cat(positions, dim=1),
            token_centers(shapes, self.device)[None],
            shapes,
            padding_mask,
        )
        return EncodedImages(memory, shapes, padding_mask, geometry)

    def propose(self, encoded: EncodedImages) -> Proposals:
        """Run the first stage: predictions of all tokens and the references of the queries."""
        geometry = encoded.geometry
        return self.proposals(
            encoded.memory,
            encoded.spatial_shapes,
            geometry.box_to_image,
            geometry.valid_extent,
            encoded.padding_mask,
            self.heads,
        )

    def noise(self, targets: list[Targets] | None, num_queries: int) -> DenoisingBatch | None:
        """Make denoising queries of the objects; None without objects or with denoising off."""
        if self.denoising is None or targets is None:
            return None
        return self.denoising(targets, num_queries)

    def decode(
        self, encoded: EncodedImages, proposals: Proposals, noised: DenoisingBatch | None
    ) -> DetectorOutputs:
        """Run the second stage: the decoder over the denoising queries and then the queries."""
        boxes, angles = proposals.boxes, proposals.angles
        num_queries = boxes.shape[1]
        queries = self.query_embed.weight[:num_queries].expand(boxes.shape[0], -1, -1)
        mask = empty = None
        split = 0
        if noised is not None:
            split = noised.boxes.shape[1]
            queries = torch.cat([noised.content, queries], dim=1)
            boxes = torch.cat([noised.boxes, boxes], dim=1)
            angles = torch.cat([noised.angles, angles], dim=1)
            mask = noised.attention_mask
            if self.denoising is not None and not self.denoising.quirks.trained_empty_slots:
                empty = F.pad(noised.empty_slots, (0, num_queries))

        layers, states = self.decoder(
            queries,
            boxes,
            angles,
            encoded.memory,
            encoded.geometry.box_to_image,
            encoded.spatial_shapes,
            self.heads,
            encoded.padding_mask,
            mask,
            empty,
        )

        return DetectorOutputs(
            proposals=proposals.predictions,
            layers=[slice_queries(p, slice(split, None)) for p in layers],
            states=states[-1][:, split:],
            denoised=[slice_queries(p, slice(0, split)) for p in layers] if split else [],
            denoised_states=states[-1][:, :split],
            noised=noised,
        )

    def detect(self, encoded: EncodedImages, targets: list[Targets] | None) -> DetectorOutputs:
        """Run both stages.

        Args:
            encoded: encoded images.
            targets: objects to make denoising queries from; None for none.

        Returns:
            The outputs that losses and detections are made from.
        """
        proposals = self.propose(encoded)
        noised = self.noise(targets, proposals.boxes.shape[1])
        return self.decode(encoded, proposals, noised)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, detections otherwise.

        Args:
            batched_inputs: dicts with ``image`` (3, H, W) RGB 0-255; ``instances`` with
                ``gt_boxes`` (RotatedBoxes, pixels of that image) and ``gt_classes`` in training;
                ``height`` and ``width`` of the original image (default: of ``image``).

        Returns:
            Training: dict of scalar losses, already weighted. Otherwise: a list of
            ``{"instances": Instances}`` in the frame of the original image.

        Raises:
            ValueError: a label is not a class of the model.
        """
        images = self.preprocess(batched_inputs)
        encoded = self.encode(images)

        if not self.training:
            layers = self.detect(encoded, None).layers
            return self.inference(layers[-1], batched_inputs, images, encoded.geometry)

        targets = self.prepare_targets([x["instances"] for x in batched_inputs], encoded.geometry)
        return self.training_losses(encoded, targets)

    def training_losses(
        self, encoded: EncodedImages, targets: list[Targets]
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted losses of a batch; a subclass decides here what it trains for."""
        outputs = self.detect(encoded, targets)
        return self.losses(targets, outputs, self.normalizers(targets, outputs))[0]

    def normalizers(self, targets: list[Targets], outputs: DetectorOutputs) -> Normalizers:
        """Count positives over all processes; every process has to call it."""
        # A matcher pairs at most as many objects as there are predictions.
        matched = [
            sum(min(p.boxes.shape[1], len(t)) for t in targets)
            for p in (outputs.proposals, outputs.layers[-1])
        ]

        noised = outputs.noised
        restored = sum(len(slots) for slots, _ in noised.matches) if noised else 0
        return Normalizers(*global_normalizers([*matched, restored], self.device))

    def losses(
        self, targets: list[Targets], outputs: DetectorOutputs, normalizers: Normalizers
    ) -> tuple[dict[str, torch.Tensor], Assignment]:
        """Compute the losses of proposals, decoder layers and denoising layers, equally weighted.

        Args:
            targets: objects, one entry per image.
            outputs: outputs of both stages.
            normalizers: divisors for these targets.

        Returns:
            Losses by name, and the matches of the proposals and of the last decoder layer.
        """
        losses, tokens = self.criterion.matched_losses(
            outputs.proposals, targets, normalizers.tokens, "_enc", class_agnostic=True
        )

        # The last layer's losses have no suffix, as in Detectron2's and DETR's logs.
        last = len(outputs.layers) - 1
        for index, predictions in enumerate(outputs.layers):
            suffix = "" if index == last else f"_{index}"
            layer_losses, queries = self.criterion.matched_losses(
                predictions, targets, normalizers.queries, suffix
            )
            losses.update(layer_losses)

        losses.update(self._denoising_losses(targets, outputs, normalizers.denoising))
        return losses, Assignment(tokens, queries)

    def _denoising_losses(
        self, targets: list[Targets], outputs: DetectorOutputs, normalizer: float
    ) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = {}
        if self.denoising is None:
            return losses

        last, noised = len(outputs.layers) - 1, outputs.noised
        for index in range(last + 1):
            suffix = "_dn" if index == last else f"_dn_{index}"
            if noised is None:
                # The same losses on every process, each with a (zero) gradient: otherwise
                # distributed training would wait for ever on a batch without objects.
                zero = 0.0 * self.denoising.label_embedding.weight.sum()
                losses.update({f"loss_{name}{suffix}": zero for name in self.criterion.weights})
                continue

            ignored = None if self.denoising.quirks.trained_empty_slots else noised.empty_slots
            losses.update(
                self.criterion.losses(
                    outputs.denoised[index], targets, noised.matches, normalizer, suffix, ignored
                )
            )
        return losses

    def inference(
        self,
        predictions: Predictions,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        geometry: ImageGeometry,
    ) -> list[dict[str, Instances]]:
        """Compute the detections of every image in the frame of its dict."""
        results = []
        for i, (x, size) in enumerate(zip(batched_inputs, images.image_sizes)):
            output_size = (x.get("height", size[0]), x.get("width", size[1]))
            instances = self.postprocessor(
                predictions, i, geometry.output_scale[i], size, output_size
            )
            results.append({"instances": instances})
        return results


def padding_of(
    sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Mark the padding of a batch, which lies below and to the right of each image.

    Args:
        sizes: (height, width) of B images, pixels.
        padded_size: (height, width) of the batch.
        device: of the result.

    Returns:
        (B, height, width) bool, True = padding.
    """
    ends = torch.tensor([tuple(size) for size in sizes], device=device)
    y, x = (torch.arange(length, device=device) for length in padded_size)
    below, beside = y >= ends[:, :1], x >= ends[:, 1:]
    return below[:, :, None] | beside[:, None]


def has_padded_tokens(
    sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    spatial_shapes: Sequence[tuple[int, int]],
) -> bool:
    """Tell whether a token of any level reads its mask from the padding of an image.

    Args:
        sizes: (height, width) of the images, pixels.
        padded_size: (height, width) of the batch.
        spatial_shapes: (height, width) of every level, to which the mask is shrunk by taking the
            nearest pixel.
    """
    for shape in spatial_shapes:
        # token i takes pixel floor(i * pixels / tokens): only the last one can lie outside
        last = [(tokens - 1) * pixels // tokens for tokens, pixels in zip(shape, padded_size)]
        if any(pixel >= side for size in sizes for pixel, side in zip(last, size)):
            return True
    return False


def slice_queries(predictions: Predictions, index: slice) -> Predictions:
    """Keep the predictions of some of the queries."""
    return Predictions(
        predictions.class_logits[:, index],
        predictions.boxes[:, index],
        predictions.angle_logits[:, index],
    )
