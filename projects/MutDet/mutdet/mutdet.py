"""MutDet: mutual enhancement, contrastive alignment and a siamese head on top of rotated DETReg.

Shapes: B images, S tokens of all levels together, Q queries, N objects of one image, C channels,
D channels of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage, has_event_storage
from torch.nn import functional as F

from rsd2.layers import MLP, at_least_float32
from rsd2.modeling import RotatedDeformableDETR
from rsd2.modeling.outputs import EncodedImages, Proposals

from .alignment import EmbeddedTargets, matched_pairs
from .detreg import AlignmentLoss, DETReg
from .mutual_enhancement import MutualEnhancement
from .quirks import NO_QUIRKS, MutDetQuirks

ENHANCED = "enhanced_"


@META_ARCH_REGISTRY.register()
class MutDet(DETReg):
    """Mutually optimising pre-training of a rotated detector.

    Source: MutDet (ECCV 2024). Object embeddings and encoder tokens enhance each other; the
    decoder runs on the enhanced tokens and, as the siamese head, on the plain ones; predictions
    of both are aligned with the enhanced embeddings. Losses of the enhanced run are named
    ``enhanced_*``. In evaluation mode it is the plain detector.

    Args:
        detector: see `DETReg`.
        alignment: see `DETReg`.
        enhancement: the mutual enhancement module, or None.
        enhance_embeddings: whether to align with the enhanced embeddings instead of those from
            disk.
        enhance_features: whether to decode the enhanced tokens.
        align_encoder: whether to align the matched enhanced tokens too, and to choose queries among
            the enhanced tokens by their similarity to the objects.
        siamese_head: whether to decode the plain tokens besides the enhanced ones.
        anchored: whether the target is the sum of the enhanced embedding and of that from disk,
            both of unit length, so that targets cannot become one vector for all objects.
        raw_steps: number of steps at the start of the training in which the targets are those from
            disk; enhanced ones follow.
        embedding_dim: see `DETReg`.
        classes: see `DETReg`.
        max_objects: see `DETReg`.
        choice: see `DETReg`.
        align_denoising: see `DETReg`.
        quirks: ``raw_query_score`` and those that `DETReg` reads; ``enhancement`` has its own.

    Raises:
        ValueError: a part is switched on without the part that it needs.
    """

    def __init__(
        self,
        detector: RotatedDeformableDETR,
        alignment: AlignmentLoss,
        *,
        enhancement: MutualEnhancement | None,
        enhance_embeddings: bool = True,
        enhance_features: bool = True,
        align_encoder: bool = True,
        siamese_head: bool = True,
        anchored: bool = False,
        raw_steps: int = 0,
        embedding_dim: int = 256,
        classes: str = "clusters",
        max_objects: int | None = 300,
        choice: str = "random",
        align_denoising: bool = True,
        quirks: MutDetQuirks = NO_QUIRKS,
    ) -> None:
        super().__init__(
            detector,
            alignment,
            embedding_dim=embedding_dim,
            classes=classes,
            max_objects=max_objects,
            choice=choice,
            align_denoising=align_denoising,
            quirks=quirks,
        )
        _check_parts(enhancement, enhance_embeddings, enhance_features, align_encoder, siamese_head)

        self.enhancement = enhancement
        self.enhance_embeddings, self.enhance_features = enhance_embeddings, enhance_features
        self.siamese_head = siamese_head
        self.anchored, self.raw_steps = anchored, raw_steps

        width = self.query_embed.embedding_dim
        _check_targets(enhancement, enhance_embeddings, anchored, raw_steps, width, embedding_dim)
        # The targets are as wide as the tokens once enhanced, and as wide as the file otherwise.
        target_width = width if enhance_embeddings else embedding_dim
        if target_width != embedding_dim:
            self.embedding_head = MLP(width, width, target_width, 2)
        self.token_embedding_head = None
        if align_encoder:
            self.token_embedding_head = MLP(width, 4 * width, target_width, 2)

        if enhance_features and not siamese_head:
            # This run never reads the plain tokens' scores, and a parameter without gradient
            # would stop distributed training.
            self.proposals.enc_output.requires_grad_(False)
            self.proposals.enc_output_norm.requires_grad_(False)

    def training_losses(
        self, encoded: EncodedImages, targets: list[EmbeddedTargets]
    ) -> dict[str, torch.Tensor]:
        """Compute the losses of the run on plain tokens, of that on enhanced ones, or of both."""
        embeddings: Sequence[torch.Tensor] = [target.embeddings for target in targets]
        geometry = encoded.geometry
        grid_logits, usable = self.proposals.grid(
            encoded.spatial_shapes,
            geometry.box_to_image,
            geometry.valid_extent,
            encoded.padding_mask,
        )

        tokens = None
        if self.enhancement is not None:
            enhanced, tokens = self.enhancement(
                encoded.memory, embeddings, encoded.padding_mask, ~usable
            )
            embeddings = self.aligned_embeddings(enhanced, embeddings)

        runs: list[tuple[str, EncodedImages, Proposals]] = []
        # The siamese head decodes plain tokens, as fine-tuning will: it closes the gap between the
        # tasks.
        if tokens is None or self.siamese_head:
            runs.append(("", encoded, self.propose(encoded)))
        if tokens is not None:
            proposals = self.propose_enhanced(tokens, embeddings, grid_logits, usable)
            runs.append((ENHANCED, replace(encoded, memory=tokens), proposals))

        # Both runs share one set of denoising queries and of counts.
        noised = self.noise(targets, runs[0][2].boxes.shape[1])
        normalizers, losses = None, {}
        for prefix, images, proposals in runs:
            outputs = self.decode(images, proposals, noised)
            normalizers = normalizers or self.normalizers(targets, outputs)
            run_losses, assignment = self.branch_losses(
                targets, outputs, normalizers, embeddings, prefix
            )
            losses.update(run_losses)

        # The enhanced run comes last if there are two, so ``assignment`` has its matches.
        if self.token_embedding_head is not None:
            pairs = matched_pairs(tokens, assignment.tokens, embeddings, targets)
            losses[f"{ENHANCED}loss_embedding_enc"] = self.align(
                self.token_embedding_head, pairs, normalizers.tokens, f"{ENHANCED}encoder"
            )
        return losses

    def aligned_embeddings(
        self, enhanced: Sequence[torch.Tensor], raw: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Choose the embeddings that predictions are aligned with in this step.

        Args:
            enhanced: B tensors (N_i, C).
            raw: B tensors (N_i, D) from disk, unit length.

        Returns:
            B tensors (N_i, C) or (N_i, D), of any length.
        """
        step = get_event_storage().iter if has_event_storage() else 0
        if not self.enhance_embeddings or step < self.raw_steps:
            return raw
        if self.anchored:
            return [F.normalize(one, dim=-1) + other for one, other in zip(enhanced, raw)]
        return enhanced

    def propose_enhanced(
        self,
        tokens: torch.Tensor,
        embeddings: Sequence[torch.Tensor],
        grid_logits: torch.Tensor,
        usable: torch.Tensor,
    ) -> Proposals:
        """Run the first stage on the enhanced tokens, with the same heads but without
        ``enc_output``.

        Args:
            tokens: (B, S, C) enhanced.
            embeddings: B tensors (N_i, D or C) with which predictions are aligned.
            grid_logits: (B, S, 4), see `TwoStageProposals.grid`.
            usable: (B, S) bool, see `TwoStageProposals.grid`.

        Returns:
            Predictions of all tokens, and the references of the best Q by similarity times
            objectness; by objectness alone in an image without objects, or without
            ``align_encoder``.
        """
        predictions = self.proposals.predict(tokens, grid_logits, self.heads)
        with torch.no_grad():
            scores = predictions.class_logits[..., 0].clone()
            if self.token_embedding_head is not None:
                similarity = self._similarity(tokens, embeddings)
                # A product with a negative logit would prefer what is least similar.
                scores = scores if self.pretraining_quirks.raw_query_score else scores.sigmoid()
                scores = scores * similarity

        return self.proposals.select(predictions, scores, usable, self.heads)

    def _similarity(self, tokens: torch.Tensor, embeddings: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (B, S) cosines of tokens with the most similar object; 1 without objects."""
        rows = []
        for image, objects in zip(tokens, embeddings):
            if len(objects) == 0:
                rows.append(image.new_ones(len(image)))
                continue

            predicted = F.normalize(at_least_float32(self.token_embedding_head(image)), dim=-1)
            objects = F.normalize(at_least_float32(objects), dim=-1)
            rows.append((predicted @ objects.T).amax(dim=1))
        return torch.stack(rows)


def _check_targets(
    enhancement: MutualEnhancement | None,
    enhance_embeddings: bool,
    anchored: bool,
    raw_steps: int,
    width: int,
    embedding_dim: int,
) -> None:
    if raw_steps < 0:
        raise ValueError(f"raw_steps must not be negative, got {raw_steps}")
    if (anchored or raw_steps) and not enhance_embeddings:
        raise ValueError("anchored and raw_steps need enhance_embeddings")
    if (anchored or raw_steps) and width != embedding_dim:
        raise ValueError(
            f"anchored and raw_steps compare embeddings of {embedding_dim} channels with enhanced "
            f"ones of {width}; extract embeddings of {width} components"
        )

    # A parameter without gradient stops distributed training.
    if enhancement is not None and enhancement.detach_objects:
        if not enhance_embeddings:
            raise ValueError(
                "enhancement.detach_objects needs enhance_embeddings: nothing else would train "
                "the objects' part"
            )
        if raw_steps:
            raise ValueError(
                "enhancement.detach_objects and raw_steps exclude each other: nothing would train "
                "the objects' part at first"
            )


def _check_parts(
    enhancement: MutualEnhancement | None,
    enhance_embeddings: bool,
    enhance_features: bool,
    align_encoder: bool,
    siamese_head: bool,
) -> None:
    used = enhance_embeddings or enhance_features

    if enhancement is None and used:
        raise ValueError("enhance_embeddings and enhance_features need an enhancement module")
    if enhancement is not None and not used:
        raise ValueError(
            "the enhancement module has no use; set enhancement to null, or enhance_embeddings or "
            "enhance_features to true"
        )

    if not enhance_features and (align_encoder or siamese_head):
        raise ValueError("align_encoder and siamese_head need enhance_features")
    if enhancement is not None and enhancement.update_tokens != enhance_features:
        raise ValueError(
            f"enhancement.update_tokens is {enhancement.update_tokens}, but enhance_features is "
            f"{enhance_features}; they must agree"
        )
