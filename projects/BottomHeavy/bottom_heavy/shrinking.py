"""How ``rsd2.testing.shrink`` makes the models of this project small."""

from __future__ import annotations

from omegaconf import DictConfig

from rsd2.testing import shrink_backbone


def shrink_classifier(model: DictConfig) -> None:
    """Make a config of ``ImageClassifier`` small enough for a test on one CPU core.

    Args:
        model: config; changed.
    """
    shrink_backbone(model.backbone)


MODEL_RULES = {"ImageClassifier": shrink_classifier}
