"""Key tables of plain vision transformers: I-JEPA, MAE, timm and ViTDet.

They share the names of `rsd2.modeling.VisionTransformer`. They differ in the layers around the
encoder, and in the table of absolute positions. A fixed table, of sines
and cosines, is dropped, because ours is computed for every grid; a learned one needs a model
that has one too (``learned_positions``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import partial

import torch

from rsd2.layers import sincos_positions_2d

from .conversion import ConversionReport, Rule, RulesOfKeys

_ENCODER = r"((?:patch_embed\.proj|blocks\.\d+\.(?:norm[12]|attn|mlp)|norm)\..+)"
_CLASS_TOKEN = "class token, which our encoder does not have"


def vit_prefix(model_keys: Iterable[str] | None) -> str:
    """Find the prefix of a model's vision transformer.

    Args:
        model_keys: keys of the model, if known.

    Returns:
        The prefix: ``backbone.net.`` in a detector, and if the model is unknown; ``backbone.`` in
        a detector without a pyramid; ``context_encoder.`` in ObjectJEPA.
    """

    found = "backbone.net."
    # The longest prefix comes last, because ``backbone.`` is the beginning of it.
    for prefix in ("context_encoder.", "backbone.", "backbone.net."):
        if any(key.startswith(prefix + "patch_embed.") for key in model_keys or ()):
            found = prefix
    return found


def without_class_token(table: torch.Tensor) -> torch.Tensor:
    """Drop the first position of a table if the rest is a square.

    Args:
        table: position embeddings (1, N, D), with or without the position of a class token.

    Returns:
        (1, N or N - 1, D) position embeddings.
    """
    return table[:, 1:] if _side(table.shape[1]) is None and _side(table.shape[1] - 1) else table


def not_fixed_positions(table: torch.Tensor) -> str | None:
    """Return why a table of positions must not be dropped, or None.

    Args:
        table: position embeddings (1, N, D), of a square grid, with or without a class token's.

    Returns:
        None if it is the fixed table of sines and cosines, up to rounding.
    """
    table = without_class_token(table.float())
    side = _side(table.shape[1])
    if side and table.shape[2] % 4 == 0:
        difference = (table[0] - sincos_positions_2d((side, side), table.shape[2])).abs().max()
        if difference < 1e-2:  # also as float16 or bfloat16
            return None
    return (
        f"{tuple(table.shape)} is not the fixed table of sines and cosines; the model needs a "
        "learned one: learned_positions=true and position_grid of that many tokens"
    )


def vit_rules_for(
    source: str, keys: Iterable[str] = (), model_keys: Iterable[str] | None = None
) -> list[Rule]:
    """Build the rules of one of the sources of this module.

    Args:
        source: "ijepa", the target encoder of I-JEPA, or "ijepa-context"; "mae", pre-training or
            fine-tuned; "timm-vit", a classifier with or without class token; "vitdet", a detector.
        keys: keys of the checkpoint; the tables do not depend on them.
        model_keys: keys of the model, if known.

    Returns:
        The rules.
    """
    wanted = list(model_keys or ())
    target = vit_prefix(wanted)
    prefix, others = _surroundings(source)
    p = re.escape(prefix)

    positions = f"{target}pos_embed"
    if source == "vitdet" or positions in wanted:
        table = Rule(p + r"pos_embed", positions, transform=without_class_token)
    else:
        reason = "fixed sines and cosines, which are made anew for every grid"
        table = Rule(p + r"pos_embed", None, reason, objection=not_fixed_positions)

    return [table, Rule(p + _ENCODER, target + r"\1"), *others]


def fill_target_encoder(state: dict[str, torch.Tensor], report: ConversionReport) -> None:
    """Fill the target encoder of a pre-training with a copy of its context encoder.

    Args:
        state: converted tensors; gets the missing ones of ``target_encoder``.
        report: report of the conversion; the filled tensors are removed from its missing ones.
    """
    copies = {
        key: state[twin]
        for key in report.missing
        if key.startswith("target_encoder.")
        and (twin := key.replace("target_encoder.", "context_encoder.", 1)) in state
    }

    state.update(copies)
    report.missing = [key for key in report.missing if key not in copies]


def _surroundings(source: str) -> tuple[str, list[Rule]]:
    """Return the prefix of the encoder, and the rules of the layers around it."""
    # Some checkpoints keep the classifier that they were trained with.
    head = Rule(r"(head|head_drop|pre_logits|fc_norm)\..+", None, "classifier of the pre-training")

    if source in ("ijepa", "ijepa-context"):
        used, unused = ("target_encoder", "encoder")[:: 1 if source == "ijepa" else -1]
        return f"{used}.", [
            Rule(rf"{unused}\..+", None, f"the other encoder; {used} is taken"),
            Rule(r"predictor\..+", None, "predictor of the pre-training"),
        ]

    if source == "mae":
        return "", [
            Rule(r"cls_token", None, _CLASS_TOKEN),
            Rule(r"mask_token|decoder_.+", None, "decoder of the pre-training"),
            head,
        ]

    if source == "timm-vit":
        return "", [Rule(r"cls_token", None, _CLASS_TOKEN), head]

    pyramid = r"(backbone\.simfp_\d\..+)"
    return "backbone.net.", [
        Rule(pyramid, r"\1", "level of a pyramid that the model does not have", optional=True),
        Rule(r"(proposal_generator|roi_heads)\..+", None, "part of another detector"),
    ]


def _side(count: int) -> int | None:
    """Return the side of a square grid of ``count`` tokens, None if ``count`` is not a square."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count and side else None


SOURCES: dict[str, RulesOfKeys] = {
    source: partial(vit_rules_for, source)
    for source in ("ijepa", "ijepa-context", "mae", "timm-vit", "vitdet")
}
"""Name of a source -> its rules."""
