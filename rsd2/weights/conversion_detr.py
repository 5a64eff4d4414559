"""Key table of ARS-DETR's checkpoints, and of detectors that were fine-tuned from them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .conversion import Rule, RulesOfKeys, first_rows, resnet_rules, reverse_rows


def _transformer_rules() -> list[Rule]:
    # A checkpoint of mmdet nests its transformer in the head.
    h = r"bbox_head\.transformer\."
    layer = h + r"(encoder|decoder)\.layers\.(\d+)\."
    encoder, decoder = h + r"encoder\.layers\.(\d+)\.", h + r"decoder\.layers\.(\d+)\."
    return [
        Rule(encoder + r"attentions\.0\.(.+)", r"encoder.layers.\1.attention.\2"),
        Rule(encoder + r"norms\.0\.(\w+)", r"encoder.layers.\1.norm.\2"),
        Rule(encoder + r"norms\.1\.(\w+)", r"encoder.layers.\1.ffn.norm.\2"),
        Rule(decoder + r"attentions\.0\.attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
        Rule(decoder + r"attentions\.1\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
        Rule(decoder + r"norms\.0\.(\w+)", r"decoder.layers.\1.norm1.\2"),
        Rule(decoder + r"norms\.1\.(\w+)", r"decoder.layers.\1.norm2.\2"),
        Rule(decoder + r"norms\.2\.(\w+)", r"decoder.layers.\1.ffn.norm.\2"),
        Rule(layer + r"ffns\.0\.layers\.0\.0\.(\w+)", r"\1.layers.\2.ffn.linear1.\3"),
        Rule(layer + r"ffns\.0\.layers\.1\.(\w+)", r"\1.layers.\2.ffn.linear2.\3"),
        Rule(h + r"decoder\.ref_point_head\.0\.(\w+)", r"decoder.query_position_mlp.layers.0.\1"),
        Rule(h + r"decoder\.ref_point_head\.2\.(\w+)", r"decoder.query_position_mlp.layers.1.\1"),
        Rule(h + r"decoder\.norm\.(\w+)", r"decoder.norm.\1"),
        Rule(h + r"(enc_output|enc_output_norm)\.(\w+)", r"proposals.\1.\2"),
        Rule(h + r"query_embed\.weight", "query_embed.weight"),
        Rule(h + r"(feature_enhance|patch_enc_\w+)\..+", None, "in MutDet's pre-training only"),
        Rule(h + r"(pos_trans|pos_trans_norm)\..+", None, "never used by ARS-DETR"),
    ]


def _head_rules(encoder_head: int, target_encoder_head: int) -> list[Rule]:

    rules = []
    # The encoder's head comes after those of the decoder, whose number may differ in both models.
    for index, target, objectness in (
        (rf"{encoder_head}", f"{target_encoder_head}", True),
        (r"(?:\d+)", None, False),
    ):
        b, i = r"bbox_head\.", f"({index})"
        to = target if target is not None else r"\1"

        rules += [
            Rule(
                b + rf"cls_branches\.{i}\.(\w+)",
                rf"heads.class_heads.{to}.\2",
                class_rows=not objectness,
                objectness_rows=objectness,
            ),
            Rule(
                b + rf"angle_branches\.{i}\.(\w+)",
                rf"heads.angle_heads.{to}.\2",
                transform=reverse_rows,
            ),
        ]

        # The layers of reg_branches stand at 0, 2 and 4, with ReLUs between them.
        rules += [
            Rule(
                b + rf"reg_branches\.{i}\.{layer}\.(\w+)",
                rf"heads.box_heads.{to}.layers.{layer // 2}.\2",
            )
            for layer in (0, 2, 4)
        ]
    return rules


def ars_detr_rules(
    num_levels: int = 4, encoder_head: int = 6, target_encoder_head: int | None = None
) -> list[Rule]:
    """Map ARS-DETR and MutDet fine-tuning checkpoints to `RotatedDeformableDETR`.

    Args:
        num_levels: number of feature levels of our model; the official table has one unused row.
        encoder_head: index of the heads that score the encoder's tokens in the checkpoint, which
            is its number of decoder layers.
        target_encoder_head: index of the same heads in our model; None takes ``encoder_head``.

    Returns:
        The rules; backbone names are torchvision's.
    """
    target = encoder_head if target_encoder_head is None else target_encoder_head
    b, levels = r"bbox_head\.", r"bbox_head\.transformer\.level_embeds"

    rules = resnet_rules("backbone.", "backbone.")
    for source, ours in (("convs", "projections"), ("extra_convs", "extra")):
        here = rf"neck\.{source}\.(\d+)\."
        rules.append(Rule(here + r"conv\.weight", rf"neck.{ours}.\1.0.weight"))
        rules.append(Rule(here + r"gn\.(\w+)", rf"neck.{ours}.\1.1.\2"))

    return [
        *rules,
        Rule(levels, "level_embed", transform=first_rows(num_levels)),
        *_transformer_rules(),
        *_head_rules(encoder_head, target),
        Rule(
            b + r"label_embedding\.weight",
            "denoising.label_embedding.weight",
            "only denoising uses it, and the model has none",
            class_rows=True,
            optional=True,
        ),
        Rule(b + r"feature_embed\..+", None, "in MutDet's pre-training only"),
        Rule(b + r"(.+\.)?angle_head\..+", None, "never used by ARS-DETR"),
    ]


def detr_rules_for(keys: Iterable[str], model_keys: Iterable[str] | None = None) -> list[Rule]:
    """Build the rules of a detector for the numbers of decoder layers of checkpoint and model.

    Args:
        keys: keys of the checkpoint.
        model_keys: keys of our model, if known.

    Returns:
        The rules of `ars_detr_rules`.
    """

    def last(pattern: str, names: Iterable[str], default: int) -> int:
        found = [int(m[1]) for name in names if (m := re.match(pattern, name))]
        return max(found, default=default)

    # The encoder's head has the highest index, because it comes after the decoder's.
    encoder_head = last(r"bbox_head\.cls_branches\.(\d+)\.", keys, 6)
    target = last(r"heads\.class_heads\.(\d+)\.", model_keys or (), encoder_head)
    return ars_detr_rules(encoder_head=encoder_head, target_encoder_head=target)


SOURCES: dict[str, RulesOfKeys] = {"ars-detr": detr_rules_for}
"""Name of a source -> its rules."""
