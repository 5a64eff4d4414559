"""Key table of SSPNet's Faster R-CNN."""

from __future__ import annotations

import torch

from rsd2.weights.conversion import Rule, RulesOfKeys, Transform, resnet_rules

_COUNTER = Rule(r".*num_batches_tracked", None, "a counter that no layer here uses")


def size_major_anchors(num_sizes: int, num_ratios: int, values: int) -> Transform:
    """Make a transform that reorders the outputs of a proposal network.

    OpenMMLab lists the anchors of a location by aspect ratio, then by size; Detectron2 by size,
    then by ratio.

    Args:
        num_sizes: S, number of anchor sizes of each ratio.
        num_ratios: R, number of aspect ratios.
        values: number of outputs of an anchor: 1 logit or 4 deltas.

    Returns:
        The transform of a tensor whose first dimension has R S ``values`` entries.
    """

    def reorder(tensor: torch.Tensor) -> torch.Tensor:
        grouped = tensor.unflatten(0, (num_ratios, num_sizes, values))
        return grouped.transpose(0, 1).flatten(0, 2)

    return reorder


def sspnet_rules(target_backbone: str, num_sizes: int = 4, num_ratios: int = 3) -> list[Rule]:
    """Make the rules from SSPNet's detectors, also on bottom-heavy backbones, to `AttentionRCNN`.

    Args:
        target_backbone: prefix of the ResNet in our model.
        num_sizes: anchor sizes of each level.
        num_ratios: aspect ratios of each size.

    Returns:
        The rules; the neck's norm needs ``model.backbone.attention_norm=BN``.
    """

    attention = "backbone.context_attention."
    # The attention module is a sequence there and has named parts here.
    renamed = {
        r"neck\.CAM\.dila_conv\.0\.": attention + "reduce.",
        r"neck\.CAM\.dila_conv\.1\.aspp\.(?P<i>\d+)\.": attention + r"context.branches.\g<i>.",
        r"neck\.CAM\.dila_conv\.2\.": attention + "fuse.",
        r"neck\.CAM\.dila_conv\.3\.": attention + "fuse.norm.",
        r"neck\.CAM\.down_conv\.(?P<i>\d+)\.": attention + r"descend.\g<i>.",
        r"neck\.CAM\.att_conv\.(?P<i>\d+)\.": attention + r"attend.\g<i>.",
        r"rpn_head\.rpn_conv\.": "proposal_generator.rpn_head.conv.",
        r"roi_head\.bbox_head\.shared_fcs\.0\.": "roi_heads.box_head.fc1.",
        r"roi_head\.bbox_head\.shared_fcs\.1\.": "roi_heads.box_head.fc2.",
        # the background is the last class in both
        r"roi_head\.bbox_head\.fc_cls\.": "roi_heads.box_predictor.cls_score.",
        r"roi_head\.bbox_head\.fc_reg\.": "roi_heads.box_predictor.bbox_pred.",
    }

    for level in range(4):
        for theirs, ours in (("lateral_convs", "fpn_lateral"), ("fpn_convs", "fpn_output")):
            renamed[rf"neck\.{theirs}\.{level}\.conv\."] = f"backbone.{ours}{level + 2}."
    # Detectron2 orders the anchors differently, so the last layers need permuted channels.
    head = "proposal_generator.rpn_head."
    return [
        _COUNTER,
        *resnet_rules("backbone.", target_backbone),
        *(Rule(old + r"(?P<part>\w+)", new + r"\g<part>") for old, new in renamed.items()),
        Rule(
            r"rpn_head\.rpn_cls\.(\w+)",
            head + r"objectness_logits.\1",
            transform=size_major_anchors(num_sizes, num_ratios, 1),
        ),
        Rule(
            r"rpn_head\.rpn_reg\.(\w+)",
            head + r"anchor_deltas.\1",
            transform=size_major_anchors(num_sizes, num_ratios, 4),
        ),
    ]


SOURCES: dict[str, RulesOfKeys] = {
    "sspnet": lambda keys, model_keys: sspnet_rules("backbone.bottom_up."),
}
"""Name of a source -> its rules, as ``tools/convert_checkpoint.py`` collects them."""
