"""Parameters and features of the golden sets, which follow a rule instead of being shipped.

Loaded by the fixture ``golden_rule`` of ``tests/conftest.py``.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

CHANNELS = {"res3": 512, "res4": 1024, "res5": 2048}


class GivenFeatures(Backbone):
    """A backbone that returns features drawn by the rule of the golden sets."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype_marker = nn.Parameter(torch.zeros(1))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=c) for name, c in CHANNELS.items()}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = {}
        for seed, (name, channels), size in zip((1, 2, 3), CHANNELS.items(), (16, 8, 4)):
            z = np.random.RandomState(seed).standard_normal((len(images), channels, size, size))
            features[name] = torch.from_numpy(z).to(self.dtype_marker.dtype)
        return features


class Shapes(dict):
    """Names and shapes of the official checkpoints, in their order."""

    def linear(self, name: str, out: int, inp: int) -> None:
        self[name + ".weight"], self[name + ".bias"] = (out, inp), (out,)

    def norm(self, name: str) -> None:
        self[name + ".weight"], self[name + ".bias"] = (256,), (256,)


def detector_shapes(num_classes: int, layers: int) -> Shapes:
    """Names and shapes of an official fine-tuning checkpoint, without the backbone."""
    shapes = Shapes()
    for i, channels in enumerate(CHANNELS.values()):
        shapes[f"neck.convs.{i}.conv.weight"] = (256, channels, 1, 1)
        shapes.norm(f"neck.convs.{i}.gn")
    shapes["neck.extra_convs.0.conv.weight"] = (256, 2048, 3, 3)
    shapes.norm("neck.extra_convs.0.gn")
    h = "bbox_head.transformer."
    shapes[h + "level_embeds"] = (5, 256)
    for part, count in (("encoder", 2), ("decoder", 3)):
        for i in range(layers):
            name = f"{h}{part}.layers.{i}."
            deformable = name + f"attentions.{count - 2}."
            shapes.linear(deformable + "sampling_offsets", 256, 256)
            shapes.linear(deformable + "attention_weights", 128, 256)
            shapes.linear(deformable + "value_proj", 256, 256)
            shapes.linear(deformable + "output_proj", 256, 256)
            if part == "decoder":
                shapes[name + "attentions.0.attn.in_proj_weight"] = (768, 256)
                shapes[name + "attentions.0.attn.in_proj_bias"] = (768,)
                shapes.linear(name + "attentions.0.attn.out_proj", 256, 256)
            shapes.linear(name + "ffns.0.layers.0.0", 1024, 256)
            shapes.linear(name + "ffns.0.layers.1", 256, 1024)
            for j in range(count):
                shapes.norm(name + f"norms.{j}")
    shapes.linear(h + "decoder.ref_point_head.0", 256, 512)
    shapes.linear(h + "decoder.ref_point_head.2", 256, 256)
    shapes.norm(h + "decoder.norm")
    shapes.linear(h + "enc_output", 256, 256)
    shapes.norm(h + "enc_output_norm")
    shapes[h + "query_embed.weight"] = (300, 256)
    for i in range(layers + 1):
        shapes.linear(f"bbox_head.cls_branches.{i}", num_classes, 256)
        shapes.linear(f"bbox_head.reg_branches.{i}.0", 256, 256)
        shapes.linear(f"bbox_head.reg_branches.{i}.2", 256, 256)
        shapes.linear(f"bbox_head.reg_branches.{i}.4", 4, 256)
        shapes.linear(f"bbox_head.angle_branches.{i}", 180, 256)
    shapes["bbox_head.label_embedding.weight"] = (num_classes, 256)
    return shapes


def pretraining_shapes(num_classes: int = 256, layers: int = 2) -> Shapes:
    """Names and shapes of an official MutDet pre-training checkpoint, without the backbone."""
    shapes = detector_shapes(num_classes, layers)
    h = "bbox_head.transformer."
    for i in range(3):
        layer = f"{h}feature_enhance.layers.{i}."
        for attention in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes.linear(f"{layer}{attention}.{projection}", 256, 256)
        shapes.linear(layer + "mlp.lin1", 2048, 256)
        shapes.linear(layer + "mlp.lin2", 256, 2048)
        for j in range(1, 5):
            shapes.norm(f"{layer}norm{j}")
    shapes.linear(h + "patch_enc_output", 256, 256)
    shapes.norm(h + "patch_enc_output_norm")
    shapes.linear(h + "patch_enc_decode.0", 1024, 256)
    shapes.linear(h + "patch_enc_decode.2", 256, 1024)
    shapes.linear("bbox_head.feature_embed.layers.0", 256, 256)
    shapes.linear("bbox_head.feature_embed.layers.1", 256, 256)
    return shapes


def fill(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Value of a parameter by the rule of the golden sets, float64."""
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if any(name in key for name in ("level_embeds", "query_embed", "label_embedding")):
        pass
    elif len(shape) == 1:
        z = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    else:
        z = z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(z)
