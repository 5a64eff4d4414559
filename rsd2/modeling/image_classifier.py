"""Classification as pre-training of a backbone.

Shapes: B images, K classes, H, W height and width of the images of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import nn
from torch.nn import functional as F


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """A backbone, global average pooling of its last map, and a linear layer.

    Its checkpoints initialise the backbone of a detector: ``train.init_checkpoint=FILE
    train.init_strict=false``.

    Args:
        backbone: backbone that returns ``feature``.
        num_classes: K, number of classes.
        feature: name of the feature map.
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        pixel_mean: mean of each channel, 0-255, RGB.
        pixel_std: standard deviation of each channel, 0-255, RGB.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        feature: str = "res5",
        label_smoothing: float = 0.0,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature = feature
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.head = nn.Linear(backbone.output_shape()[feature].channels, num_classes)

        # A small head starts near equal scores, whatever the backbone was initialised with.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute the loss in training, the scores otherwise.

        Args:
            batched_inputs: B dicts with ``image`` (3, H, W) RGB 0-255, all of one size, and in
                training ``label`` in [0, K).

        Returns:
            Training: ``{"loss_classification": scalar}``. Otherwise: a list of ``{"scores": (K,)
            probabilities}``.

        Raises:
            ValueError: the sizes differ, or a label is not a class of the model.
        """
        sizes = {tuple(x["image"].shape) for x in batched_inputs}
        if len(sizes) > 1:
            raise ValueError(f"a batch needs images of one size, got {sorted(sizes)}; crop them")

        mean, deviation = (self.get_buffer(name) for name in ("pixel_mean", "pixel_std"))
        images = torch.stack([x["image"] for x in batched_inputs]).to(mean.device)
        features = self.backbone((images - mean) / deviation)[self.feature]
        logits = self.head(features.mean(dim=(2, 3)))
        if not self.training:
            return [{"scores": scores} for scores in logits.softmax(dim=1)]

        labels = [int(x["label"]) for x in batched_inputs]
        if min(labels) < 0 or max(labels) >= self.num_classes:
            raise ValueError(
                f"labels {min(labels)} to {max(labels)} do not fit model.num_classes="
                f"{self.num_classes}"
            )

        targets = torch.tensor(labels, device=logits.device)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        return {"loss_classification": loss}
