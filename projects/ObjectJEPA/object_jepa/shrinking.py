"""How ``rsd2.testing.shrink`` makes the models of this project small."""

from __future__ import annotations

from omegaconf import DictConfig

from rsd2.testing import replace_values, shrink_backbone


def shrink_object_jepa(model: DictConfig) -> None:
    """Make a config of ``ObjectJEPA`` small enough for a test on one CPU core.

    Args:
        model: config; changed.
    """
    shrink_backbone(model.encoder, "model.encoder")
    replace_values(model.predictor, {"embed_dim": 16, "num_heads": 2, "depth": 1})

    # Crops of 64 pixels have few patches. None means "as many as the mask has" and stays.
    if model.masks.num_predicted is not None:
        model.masks.num_predicted = 6
    if model.masks.num_context is not None:
        model.masks.num_context = 4


MODEL_RULES = {"ObjectJEPA": shrink_object_jepa}
