"""ObjectJEPA: predict features of hidden patches, chosen by object boxes, from visible ones.

Shapes: B images, H, W sides of the images, N = h w tokens, K tokens of the context, P predicted
tokens, G boxes of an image (padded), D channels of the encoder, C channels of a target.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn
from torch.nn import functional as F

from rsd2.engine import move_average
from rsd2.layers import at_least_float32
from rsd2.layers.transformer_block import NORM_EPSILON
from rsd2.modeling.backbones.vit import VisionTransformer
from rsd2.structures import from_horizontal

from .masking import Masks, MaskSampler
from .predictor import Predictor

TARGETS = ("latent", "pixel")
LOSSES = ("smooth_l1", "l2", "cosine")
INPUTS = ("drop", "fill")


class JepaOutput(NamedTuple):
    """All results of a step.

    Attributes:
        masks: indices on the device of the model.
        context: (B, K, D) tokens of the context encoder; (B, N, D) where the input is filled.
        prediction: (B, P, C).
        target: (B, N, C) targets of all tokens, as the loss uses them.
        token_loss: (B, P), loss of each predicted token, unweighted.
    """

    masks: Masks
    context: torch.Tensor
    prediction: torch.Tensor
    target: torch.Tensor
    token_loss: torch.Tensor


@META_ARCH_REGISTRY.register()
class ObjectJEPA(nn.Module):
    """Joint-embedding predictive pre-training with masks guided by objects.

    Source: I-JEPA (arXiv 2301.08243) for encoder, target and predictor; masks and losses by objects
    are this project's own. ``target_encoder`` is a moving average of ``context_encoder``; the hook
    `rsd2.engine.TargetUpdate` moves it, and sets ``progress``.

    Args:
        encoder: the context encoder; the target encoder starts as a copy.
        predictor: maps D channels to those of the targets; has mask tokens exactly if
            ``masked_input`` is "drop".
        masks: sampler of what is hidden and predicted.
        target: "latent", tokens of the target encoder for the whole image, or "pixel", the
            patches of the image themselves, as MAE (arXiv 2111.06377) predicts them.
        normalize_target: whether to give each target token mean 0 and variance 1 over its channels.
        loss: "smooth_l1" (beta 1), "l2", both averaged over channels, or "cosine", one minus it.
        masked_input: "drop" hidden tokens, or "fill" hidden patches with the mean colour and
            encode them all.
        variance_weight: weight of the hinge that keeps the standard deviation of every channel of
            the context tokens at 1 or more, over the batch, for objects and background apart
            (VICReg, arXiv 2105.04906, equation 1); 0 for none. It sees the images of one process.
        pixel_mean: mean of each channel, 0-255, in the order of the images.
        pixel_std: standard deviation of each channel, 0-255.

    Raises:
        ValueError: an option is unknown, or the predictor does not fit.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        predictor: Predictor,
        *,
        masks: MaskSampler,
        target: str = "latent",
        normalize_target: bool = True,
        loss: str = "smooth_l1",
        masked_input: str = "drop",
        variance_weight: float = 0.0,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("target", target, TARGETS),
            ("loss", loss, LOSSES),
            ("masked_input", masked_input, INPUTS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")

        if (predictor.mask_token is not None) != (masked_input == "drop"):
            raise ValueError(
                f"masked_input={masked_input!r} needs a predictor with "
                f"mask_tokens={masked_input == 'drop'}"
            )

        channels = encoder.embed_dim if target == "latent" else 3 * encoder.patch_size**2
        if predictor.proj.out_features != channels:
            raise ValueError(
                f"the predictor returns {predictor.proj.out_features} channels, a {target} target "
                f"has {channels}; set out_dim"
            )

        self.context_encoder = encoder
        # The target is a moving average of the context encoder and starts equal to it.
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.predictor = predictor
        self.masks = masks
        self.target, self.normalize_target = target, normalize_target
        self.loss, self.masked_input = loss, masked_input
        self.variance_weight = variance_weight
        self.progress = 0.0
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def train(self, mode: bool = True) -> ObjectJEPA:
        """Switch the mode; the target encoder stays in evaluation mode, for exact tokens."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Device of the model's buffers."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Compute the losses of a step, or features in evaluation mode.

        Args:
            batched_inputs: dicts with ``image`` (3, H, W), 0-255, all of one size; in training
                ``instances`` with ``gt_boxes`` (``RotatedBoxes`` or ``Boxes``; no objects where
                it is absent), and ``mask_seed``, an integer >= 0, which alone decides on the
                image's mask; drawn from torch's generator where it is absent.

        Returns:
            ``loss_prediction``, and ``loss_variance`` if its weight is not 0: means of the images'
            means. In evaluation mode, for each image, ``features``, (D, h, w) of the target
            encoder.

        Raises:
            ValueError: the images differ in size, or their sides are not multiples of the patch
                size.
        """
        if not self.training:
            images = self.preprocess(batched_inputs)
            return [{"features": one} for one in self.dense_features(images)]

        output = self.analyze(batched_inputs)
        weights = output.masks.weights
        # A mean of the images' means, so that images with few weighted tokens count as much.
        of_image = (output.token_loss * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        losses = {"loss_prediction": of_image.mean()}

        if self.variance_weight:
            flags = output.masks.object_tokens
            if self.masked_input == "drop":
                flags = flags.gather(1, output.masks.keep)
            losses["loss_variance"] = self.variance_weight * variance_hinge(output.context, flags)

        self._log(output)
        return losses

    def analyze(
        self, batched_inputs: list[dict[str, Any]], generator: torch.Generator | None = None
    ) -> JepaOutput:
        """Compute a step with all intermediate results.

        Args:
            batched_inputs: see `forward`.
            generator: generator of the masks' seeds, on the CPU, instead of ``mask_seed``.

        Returns:
            The results of the step.

        Raises:
            ValueError: see `forward`.
        """
        images = self.preprocess(batched_inputs)
        grid = self._grid(images)
        boxes, valid = pad_boxes(batched_inputs)
        masks = self.masks.sample(
            boxes,
            valid,
            grid=grid,
            patch_size=self.context_encoder.patch_size,
            seeds=_seeds(batched_inputs, generator),
            progress=self.progress,
        )
        masks = Masks(*(value.to(self.device, non_blocking=True) for value in masks))

        target = self._targets(images)
        # Dropped tokens cost nothing; the filled input is the idea to the letter, and encodes
        # all.
        if self.masked_input == "drop":
            keep = masks.keep
            context = self.context_encoder.encode(images, keep)
        else:
            keep = None
            context = self.context_encoder.encode(self._fill(images, masks.hidden, grid))

        prediction = self.predictor(context, keep, masks.predicted, grid)
        index = masks.predicted[..., None].expand(-1, -1, target.shape[2])
        token_loss = self._token_loss(prediction, target.gather(1, index))
        return JepaOutput(masks, context, prediction, target, token_loss)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> torch.Tensor:
        """Stack the normalised images, (B, 3, H, W)."""
        sizes = {tuple(x["image"].shape[-2:]) for x in batched_inputs}
        if len(sizes) > 1:
            raise ValueError(
                f"images of one batch must have one size, got {sorted(sizes)}; crop them "
                "(see CropDatasetMapper)"
            )

        images = torch.stack([x["image"] for x in batched_inputs]).to(self.device)
        return (images - self.pixel_mean) / self.pixel_std

    @torch.no_grad()
    def dense_features(self, images: torch.Tensor) -> torch.Tensor:
        """Encode whole images with the target encoder.

        Args:
            images: (B, 3, H, W) normalised.

        Returns:
            (B, D, h, w).
        """
        tokens = self.target_encoder.encode(images)
        return tokens.transpose(1, 2).unflatten(2, self._grid(images))

    def update_target(self, momentum: float) -> None:
        """Move the target encoder towards the context encoder.

        Args:
            momentum: share of the old target, in [0, 1].
        """
        move_average(self.target_encoder, self.context_encoder, momentum)

    def _grid(self, images: torch.Tensor) -> tuple[int, int]:
        size = self.context_encoder.patch_size
        return images.shape[-2] // size, images.shape[-1] // size

    @torch.no_grad()
    def _targets(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the targets (B, N, C)."""
        if self.target == "latent":
            tokens = self.target_encoder.encode(images)
        else:
            size = self.context_encoder.patch_size
            tokens = F.pixel_unshuffle(images, size).flatten(2).transpose(1, 2)

        tokens = at_least_float32(tokens)
        # As in I-JEPA's program, without parameters: it keeps the targets from shrinking as a
        # whole.
        if self.normalize_target:
            tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPSILON)
        return tokens

    def _fill(
        self, images: torch.Tensor, hidden: torch.Tensor, grid: tuple[int, int]
    ) -> torch.Tensor:
        """Fill the hidden patches with the mean colour, which is 0 here."""
        flags = torch.zeros(len(images), grid[0] * grid[1], dtype=torch.bool, device=self.device)
        flags.scatter_(1, hidden, True)
        scale = float(self.context_encoder.patch_size)
        patches = flags.view(-1, 1, *grid).float()
        return images.masked_fill(F.interpolate(patches, scale_factor=scale).bool(), 0.0)

    def _token_loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each predicted token, (B, P)."""
        prediction = at_least_float32(prediction)
        if self.loss == "cosine":
            return 1 - F.cosine_similarity(prediction, target, dim=2)
        function = F.smooth_l1_loss if self.loss == "smooth_l1" else F.mse_loss
        return function(prediction, target, reduction="none").mean(dim=2)

    def _log(self, output: JepaOutput) -> None:
        """Log the loss on objects and that on background separately."""
        if not has_event_storage():
            return

        is_object = output.masks.object_tokens.gather(1, output.masks.predicted)
        token_loss = output.token_loss.detach()
        sums = [(token_loss * flags).sum() for flags in (is_object, ~is_object)]

        # One transfer, because each makes the GPU wait.
        values = torch.stack([*sums, is_object.sum().to(sums[0].dtype)]).tolist()
        counts = values[2], token_loss.numel() - values[2]
        for name, total, count in zip(("object", "background"), values, counts):
            if count:
                get_event_storage().put_scalar(f"{name}_token_loss", total / count)


def pad_boxes(batched_inputs: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collect the boxes of a batch.

    Args:
        batched_inputs: see `ObjectJEPA.forward`.

    Returns:
        (B, G, 5) float32 cx, cy, w, h in pixels, angle in degrees, on the CPU, and (B, G) bool,
        False for padding.
    """
    rows = []
    for one in batched_inputs:
        boxes = torch.zeros(0, 5)
        if "instances" in one and one["instances"].has("gt_boxes"):
            boxes = one["instances"].gt_boxes.tensor.detach().cpu().float()
        rows.append(from_horizontal(boxes) if boxes.shape[1] == 4 else boxes)

    valid = nn.utils.rnn.pad_sequence([torch.ones(len(b), dtype=torch.bool) for b in rows], True)
    return nn.utils.rnn.pad_sequence(rows, True), valid


def variance_hinge(tokens: torch.Tensor, is_object: torch.Tensor) -> torch.Tensor:
    """Compute how far the standard deviations of the channels stay below 1.

    Source: VICReg (arXiv 2105.04906), equation 1, for tokens of objects and of background apart.

    Args:
        tokens: (B, K, D) tokens of the context.
        is_object: (B, K) bool, tokens that show objects.

    Returns:
        Scalar, the mean over the channels, and over the groups that have at least two tokens; 0 if
        none has.
    """
    tokens = at_least_float32(tokens)
    # Attached to the graph even without a group, because distributed training expects a gradient.
    terms = [tokens.sum() * 0.0]
    for group in (tokens[is_object], tokens[~is_object]):
        if len(group) > 1:
            deviation = (group.var(dim=0) + 1e-4).sqrt()
            terms.append(F.relu(1 - deviation).mean())

    return sum(terms) / max(len(terms) - 1, 1)


def _seeds(batched_inputs: list[dict[str, Any]], generator: torch.Generator | None) -> list[int]:
    # Drawn in any case, so that the generator advances the same with and without seeds in the
    # data.
    drawn = torch.randint(2**62, (len(batched_inputs),), generator=generator).tolist()
    if generator is not None:
        return drawn
    return [one.get("mask_seed", seed) for one, seed in zip(batched_inputs, drawn)]
