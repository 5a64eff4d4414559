"""How ``rsd2.testing.shrink`` makes the models of this project small."""

from __future__ import annotations

from omegaconf import DictConfig

from rsd2.testing import replace_values


def shrink_micml(model: DictConfig) -> None:
    """Make a config of ``MICML`` small enough for a test on one CPU core.

    Args:
        model: config to change in place; branches that are None stay None.
    """
    if model.static is not None:
        replace_values(model.static, {"channels": [4, 6, 8, 8, 8]})
    if model.dynamic is not None:
        replace_values(model.dynamic, {"channels": [4, 6, 8]})
        if model.dynamic.motion is not None:
            replace_values(model.dynamic.motion, {"channels": 8, "pool_size": 4, "num_layers": 1})

    replace_values(model, {"head_width": 8, "top_k": 20})


def shrink_dla(backbone: DictConfig) -> None:
    """Make a config of ``DLABackbone`` small enough for a test on one CPU core.

    Args:
        backbone: config to change in place.
    """
    backbone.net.channels = [4, 6, 8, 8, 8]


MODEL_RULES = {"MICML": shrink_micml}
BACKBONE_RULES = {"DLABackbone": shrink_dla}
