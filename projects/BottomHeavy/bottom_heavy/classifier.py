"""Classification as pre-training of a backbone, and its score.

Shapes: B images, K classes, H, W height and width of the images of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.utils import comm
from torch import nn
from torch.nn import functional as F


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """A backbone, the mean of its last map, and a linear layer.

    Its checkpoints initialise the backbone of a detector: ``train.init_checkpoint=FILE
    train.init_strict=false``.

    Args:
        backbone: gives ``feature``.
        num_classes: K.
        feature: name of the map.
        label_smoothing: share of the label that goes to all classes, in [0, 1).
        pixel_mean: per channel, 0-255, RGB.
        pixel_std: per channel, 0-255, RGB.
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
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Loss in training, scores otherwise.

        Args:
            batched_inputs: B dicts with ``image`` (3, H, W) RGB 0-255, all of one size, and in
                training ``label`` in [0, K).

        Returns:
            Training: ``{"loss_classification": scalar}``. Otherwise: a list of ``{"scores": (K,)
            probabilities}``.

        Raises:
            ValueError: sizes differ, or a label is no class of the model.
        """
        sizes = {tuple(x["image"].shape) for x in batched_inputs}
        if len(sizes) > 1:
            raise ValueError(f"a batch needs images of one size, got {sorted(sizes)}; crop them")
        images = torch.stack([x["image"] for x in batched_inputs]).to(self.pixel_mean.device)
        features = self.backbone((images - self.pixel_mean) / self.pixel_std)[self.feature]
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


class ClassificationEvaluator(DatasetEvaluator):
    """Share of images whose class is the best, or among the five best.

    Classes of equal score count against the model, so that constant scores earn nothing; so do
    scores that are NaN.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counts = [0, 0, 0]

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: dicts with ``label``.
            outputs: dicts with ``scores`` (K,).
        """
        for x, output in zip(inputs, outputs):
            scores = output["scores"]
            # 1 is the best. "Not less", because NaN is not greater either and would be first.
            rank = int((~(scores < scores[int(x["label"])])).sum())
            self._counts = [
                n + int(hit) for n, hit in zip(self._counts, (True, rank <= 1, rank <= 5))
            ]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Sum over the processes.

        Returns:
            ``{"classification": {"top1", "top5" (0-100, nan without images), "images"}}`` on the
            main process, nothing elsewhere.
        """
        gathered = comm.gather(self._counts)
        if not comm.is_main_process():
            return {}
        images, first, five = (sum(column) for column in zip(*gathered))
        top1, top5 = (100 * n / images if images else float("nan") for n in (first, five))
        return {"classification": {"top1": top1, "top5": top5, "images": images}}
