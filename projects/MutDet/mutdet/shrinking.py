"""How ``rsd2.testing.shrink`` makes the models of this project small."""

from __future__ import annotations

from omegaconf import DictConfig

from rsd2.testing import mappings, replace_values, shrink_backbone, shrink_model


def shrink_pretraining(model: DictConfig) -> None:
    """Make a config of ``DETReg`` or ``MutDet`` small enough for a test on one CPU core.

    Args:
        model: config to change in place. Its ``detector`` shrinks like one trained with labels.
    """
    # The modules of the pre-training are as wide as the detector's.
    for part in (part for part in mappings(model) if "feedforward_dim" in part):
        replace_values(part, {"feedforward_dim": 64})
    if model.get("enhancement") is not None:
        model.enhancement.depth = min(model.enhancement.depth, 2)
    shrink_model(model.detector, "model.detector")


def shrink_embedder(model: DictConfig) -> None:
    """Make a config of ``ContrastiveEmbedder`` small enough for a test on one CPU core.

    Args:
        model: config to change in place.
    """
    shrink_backbone(model.backbone)


MODEL_RULES = {"DETReg": shrink_pretraining, "ContrastiveEmbedder": shrink_embedder}
