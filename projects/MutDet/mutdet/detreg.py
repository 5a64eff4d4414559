"""Rotated DETReg: a detector learns pseudo-boxes and the embeddings of their contents.

Shapes: B images, Q queries, N objects of one image, C channels, D channels of the embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from rsd2.layers import MLP
from rsd2.modeling import RotatedDeformableDETR
from rsd2.modeling.outputs import (
    Assignment,
    DetectorOutputs,
    EncodedImages,
    ImageGeometry,
    Normalizers,
)
from rsd2.structures import canonicalize

from .alignment import EmbeddedTargets, Pairs, denoising_pairs, matched_pairs
from .quirks import NO_QUIRKS, MutDetQuirks
from .telemetry import agreement

CLASSES = ("clusters", "one")
CHOICES = ("random", "first")
COLLAPSE_COSINE = 0.95
"""Mean cosine of different objects of an image above which their embeddings are one vector."""
_logger = logging.getLogger(__name__)


class AlignmentLoss(Protocol):
    """A loss between predicted embeddings (G, M, C) and embeddings of objects (M, C)."""

    def __call__(
        self,
        predicted: torch.Tensor,
        objects: torch.Tensor,
        classes: torch.Tensor,
        normalizer: float,
        images: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a scalar; see `alignment.EmbeddingRegression`."""


@META_ARCH_REGISTRY.register()
class DETReg(RotatedDeformableDETR):
    """Pre-training of a rotated detector by pseudo-boxes and object embeddings.

    Source: DETReg (arXiv 2106.04550) on the rotated detector of MutDet (ECCV 2024). The backbone
    is frozen: no gradient, no update of norm statistics, no memory for its backward pass. All
    parts of the detector keep their names, so that the plain detector loads the checkpoint.

    Args:
        detector: the detector to pre-train; this model takes over its parts.
        alignment: loss of the predicted embeddings.
        embedding_dim: D of the embeddings in ``gt_embeddings``.
        classes: "clusters": the detector learns the pseudo-classes of the data; "one": every
            object is class 0 of a detector with one class.
        max_objects: an image with more objects contributes so many of them to each step; None for
            all.
        choice: which ones: "random", anew in every step, and predictions on the others learn no
            class; "first", in the order of the file, and the others are background, as the official
            program takes the first 1000.
        align_denoising: whether to align the denoising queries too.
        quirks: only ``first_denoising_rows`` is read; the detector has its own quirks.
    """

    def __init__(
        self,
        detector: RotatedDeformableDETR,
        alignment: AlignmentLoss,
        *,
        embedding_dim: int = 256,
        classes: str = "clusters",
        max_objects: int | None = 300,
        choice: str = "random",
        align_denoising: bool = False,
        quirks: MutDetQuirks = NO_QUIRKS,
    ) -> None:
        if classes not in CLASSES:
            raise ValueError(f"classes must be one of {CLASSES}, got {classes!r}")
        if classes == "one" and detector.num_classes != 1:
            raise ValueError(
                f"classes='one' needs a detector with num_classes=1, got {detector.num_classes}"
            )
        if max_objects is not None and max_objects < 1:
            raise ValueError(f"max_objects must be at least 1 or None, got {max_objects}")
        if choice not in CHOICES:
            raise ValueError(f"choice must be one of {CHOICES}, got {choice!r}")

        nn.Module.__init__(self)
        # The detector is no child, so that names in the checkpoint are those of the plain one.
        vars(self).update(vars(detector))
        self.alignment, self.embedding_dim, self.classes = alignment, embedding_dim, classes
        self.max_objects, self.choice = max_objects, choice
        self.align_denoising = align_denoising
        self.pretraining_quirks = quirks

        width = self.query_embed.embedding_dim
        self.embedding_head = MLP(width, width, embedding_dim, 2)
        self.backbone.requires_grad_(False)
        self._checks_backbone = self._checks_collapse = True
        self.train(self.training)

    def train(self, mode: bool = True) -> DETReg:
        """Set the mode of everything but the backbone, which stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def backbone_features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name of normalised, padded images (B, 3, H, W), without gradient."""
        if self.training and self._checks_backbone:
            self._checks_backbone = False
            # Warn once: pre-training on random features wastes days and fails without a sign.
            means = [buffer for name, buffer in self.backbone.named_buffers() if "mean" in name]
            # Only statistics that were never updated are exactly zero.
            if means and not any(mean.any() for mean in means):
                _logger.warning(
                    "the norm statistics of the frozen backbone are those of an untrained one: "
                    "its features are random; set train.init_checkpoint"
                )
        return super().backbone_features(images)

    def prepare_targets(
        self, instances: list[Instances], geometry: ImageGeometry
    ) -> list[EmbeddedTargets]:
        """Bring ``gt_boxes``, ``gt_classes`` and ``gt_embeddings`` into the detector's units.

        Raises:
            ValueError: there are no embeddings, or their width differs from the model's.
        """
        parts = [self._choose(x) for x in instances]
        chosen = [part for part, _ in parts]
        targets = []
        for (x, others), target, scale in zip(
            parts, super().prepare_targets(chosen, geometry), geometry.box_scale
        ):
            embeddings = x.gt_embeddings.to(self.device, self.query_embed.weight.dtype)
            left_out = None
            if others is not None:
                boxes = canonicalize(others.gt_boxes.tensor.to(self.device).float())
                left_out = boxes[:, :4] / scale

            targets.append(
                EmbeddedTargets(
                    target.labels,
                    target.boxes,
                    target.angle_targets,
                    embeddings,
                    left_out=left_out,
                )
            )
        return targets

    def _choose(self, instances: Instances) -> tuple[Instances, Instances | None]:
        """Choose at most ``max_objects`` of an image, with the classes that the model learns.

        Returns:
            The chosen ones, and those of the others that are not to be background.
        """
        if not instances.has("gt_embeddings"):
            raise ValueError(
                "the instances have no gt_embeddings; give the training loader the mapper "
                "EmbeddingDatasetMapper and a dataset with embeddings (extract_embeddings.py)"
            )

        width = instances.gt_embeddings.shape[1]
        if width != self.embedding_dim:
            raise ValueError(
                f"the embeddings have {width} channels, the model has embedding_dim="
                f"{self.embedding_dim}; set model.embedding_dim or extract the embeddings again"
            )

        # SAM labels up to a thousand objects per tile; the memory of every loss grows with them.
        others = None
        if self.max_objects is not None and len(instances) > self.max_objects:
            # At random anew in every step, so that all objects are seen in the long run.
            is_random = self.choice == "random"
            order = (torch.randperm if is_random else torch.arange)(len(instances))
            others = instances[order[self.max_objects :]] if is_random else None
            instances = instances[order[: self.max_objects]]

        if self.classes == "one":
            fields = instances.get_fields() | {"gt_classes": torch.zeros_like(instances.gt_classes)}
            instances = Instances(instances.image_size, **fields)
        return instances, others

    def training_losses(
        self, encoded: EncodedImages, targets: list[EmbeddedTargets]
    ) -> dict[str, torch.Tensor]:
        """Compute the detection losses and the alignment of the last decoder layer."""
        outputs = self.detect(encoded, targets)
        normalizers = self.normalizers(targets, outputs)
        embeddings = [target.embeddings for target in targets]
        return self.branch_losses(targets, outputs, normalizers, embeddings)[0]

    def branch_losses(
        self,
        targets: list[EmbeddedTargets],
        outputs: DetectorOutputs,
        normalizers: Normalizers,
        embeddings: Sequence[torch.Tensor],
        prefix: str = "",
    ) -> tuple[dict[str, torch.Tensor], Assignment]:
        """Compute the losses of one pass through the decoder.

        Args:
            targets: the objects of the B images.
            outputs: predictions of both stages.
            normalizers: normalizers of these targets.
            embeddings: B tensors (N_i, D or C) with which the predicted ones are aligned.
            prefix: prefix of the names of the losses.

        Returns:
            ``loss_*`` of the detector, ``loss_embedding`` and ``loss_embedding_dn``, and the
            matches of the proposals and of the last decoder layer.
        """
        losses, assignment = self.losses(targets, outputs, normalizers)
        pairs = matched_pairs(outputs.states, assignment.queries, embeddings, targets)
        losses["loss_embedding"] = self.align(
            self.embedding_head, pairs, normalizers.queries, f"{prefix}decoder"
        )

        if self.align_denoising and self.denoising is not None:
            if outputs.noised is not None:
                pairs = denoising_pairs(
                    outputs.denoised_states,
                    outputs.noised,
                    embeddings,
                    targets,
                    self.pretraining_quirks.first_denoising_rows,
                )

            # Without objects these are the (empty) pairs of the ordinary queries, so that every
            # process reports the same losses and takes part in the same reductions.
            losses["loss_embedding_dn"] = self.align(
                self.embedding_head, pairs, normalizers.denoising
            )
        return {f"{prefix}{name}": value for name, value in losses.items()}, assignment

    def align(
        self, head: nn.Module, pairs: Pairs, normalizer: float, logged_as: str | None = None
    ) -> torch.Tensor:
        """Compute the alignment loss of pairs; every process must call it.

        Args:
            head: maps states (..., C) to embeddings.
            pairs: M objects in G groups.
            normalizer: number of pairs, averaged over processes.
            logged_as: name under which the values of `agreement` are logged. Targets whose
                ``target_cosine`` exceeds `COLLAPSE_COSINE` are warned of once.

        Returns:
            Scalar.
        """
        predicted = head(pairs.states)
        if logged_as is not None and len(pairs.embeddings) and has_event_storage():
            values = agreement(predicted[0], pairs.embeddings, pairs.images)
            get_event_storage().put_scalars(
                **{f"{logged_as}_{name}": value for name, value in values.items()}
            )
            self._warn_of_collapse(values.get("target_cosine", 0.0))

        return self.alignment(
            predicted, pairs.embeddings, pairs.classes, normalizer, images=pairs.images
        )

    def _warn_of_collapse(self, cosine: float) -> None:
        if self._checks_collapse and cosine > COLLAPSE_COSINE:
            self._checks_collapse = False
            _logger.warning(
                "different objects of an image have nearly the same target embedding (cosine %.3f, "
                "alarm above %.2f): the alignment teaches little about objects; see "
                "alignment.negatives, enhancement.zero_init and anchored",
                cosine,
                COLLAPSE_COSINE,
            )
