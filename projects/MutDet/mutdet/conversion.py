"""Key table of MutDet's pre-training checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from rsd2.weights.conversion import Rule, RulesOfKeys
from rsd2.weights.conversion_detr import detr_rules_for


def mutdet_rules() -> list[Rule]:
    """Make the rules for what MutDet's pre-training has besides the detector.

    Returns:
        Rules to put before those of `ars_detr_rules`, which drop these keys.
    """
    h, layer = r"bbox_head\.transformer\.", r"feature_enhance\.layers\.(\d+)\."
    renamed = {
        r"self_attn\.(.+)": r"self_attention.\2",
        r"cross_attn_token_to_image\.(.+)": r"object_to_image.\2",
        r"cross_attn_image_to_token\.(.+)": r"image_to_object.\2",
        r"mlp\.lin([12])\.(\w+)": r"ffn.linear\2.\3",
        r"norm([12])\.(\w+)": r"norm\2.\3",
        # The official layer numbers its norms 1 to 4; here the third is inside the feed-forward
        # block.
        r"norm3\.(\w+)": r"ffn.norm.\2",
        r"norm4\.(\w+)": r"norm3.\2",
    }

    return [
        *(Rule(h + layer + old, r"enhancement.layers.\1." + new) for old, new in renamed.items()),
        Rule(h + r"patch_enc_output\.(\w+)", r"enhancement.token_projection.\1"),
        Rule(h + r"patch_enc_output_norm\.(\w+)", r"enhancement.token_norm.\1"),
        Rule(h + r"patch_enc_decode\.0\.(\w+)", r"token_embedding_head.layers.0.\1"),
        Rule(h + r"patch_enc_decode\.2\.(\w+)", r"token_embedding_head.layers.1.\1"),
        Rule(r"bbox_head\.feature_embed\.layers\.(\d+)\.(\w+)", r"embedding_head.layers.\1.\2"),
    ]


def _pretraining_rules(keys: Iterable[str], model_keys: Iterable[str] | None = None) -> list[Rule]:
    return [*mutdet_rules(), *detr_rules_for(keys, model_keys)]


SOURCES: dict[str, RulesOfKeys] = {"mutdet": _pretraining_rules}
"""Name of a source -> its rules, as ``tools/convert_checkpoint.py`` collects them."""
