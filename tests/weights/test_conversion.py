"""Key tables: converted weights compute the same, and every key is accounted for."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torchvision
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import nn

from rsd2.commands.convert_checkpoint import rules_for
from rsd2.modeling import AngleCoder
from rsd2.modeling.heads import DetectionHeads
from rsd2.weights.conversion import (
    Rule,
    class_permutation,
    convert_state_dict,
    detectron2_backbone_rules,
    resnet_rules,
)
from rsd2.weights.conversion_detr import ars_detr_rules

# one class list in two orders, as two releases of DIOR-R have it
THEIRS = ["airplane", "airport", "ship", "bridge", "dam"]
OURS = ["bridge", "airplane", "dam", "airport", "ship"]


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_computes_what_torchvision_computes(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    block = BasicBlock if depth == 18 else BottleneckBlock
    options = {} if depth == 18 else {"stride_in_1x1": False}
    stages = ResNet.make_default_stages(depth, block_class=block, norm="FrozenBN", **options)
    stem = BasicStem(in_channels=3, out_channels=64, norm="FrozenBN")
    ours = ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"]).eval()
    state, report = convert_state_dict(theirs.state_dict(), resnet_rules("", ""), ours.state_dict())
    assert not report.unknown and not report.mismatched and not report.missing
    assert set(report.dropped.values()) == {
        "classifier of the pre-training",
        "a counter that no layer here uses",
    }
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i in range(1, 5):
            y = getattr(theirs, f"layer{i}")(y)
            scale = y.abs().max()
            assert torch.allclose(features[f"res{i + 1}"] / scale, y / scale, atol=1e-4)


def official_heads(layers, num_classes=5, dim=8):
    """Head keys of an ARS-DETR checkpoint, with modules that compute them."""
    state, modules = {}, {}
    for i in range(layers + 1):
        shapes = {
            "cls": [(num_classes, dim)],
            "angle": [(180, dim)],
            "reg": [(dim, dim), (dim, dim), (4, dim)],
        }
        for kind, linears in shapes.items():
            for j, (out, inp) in enumerate(linears):
                name = f"bbox_head.{kind}_branches.{i}" + (f".{2 * j}" if kind == "reg" else "")
                linear = nn.Linear(inp, out)
                modules[name] = linear
                state[f"{name}.weight"] = linear.weight.detach()
                state[f"{name}.bias"] = linear.bias.detach()
    state["bbox_head.label_embedding.weight"] = torch.randn(num_classes, dim)
    return state, modules


def converted_heads(state, layers, num_classes=5, rows=None, target_layers=None):
    target_layers = layers if target_layers is None else target_layers
    heads = DetectionHeads(num_classes, target_layers, 8, AngleCoder())
    model = {f"heads.{key}": value for key, value in heads.state_dict().items()}
    result, report = convert_state_dict(state, rules_for("ars-detr", state, model), model, rows)
    own = {k.removeprefix("heads."): v for k, v in result.items() if k.startswith("heads.")}
    heads.load_state_dict(own, strict=False)
    return heads, report


def test_permuted_head_gives_permuted_outputs_and_keeps_objectness():
    state, modules = official_heads(2)
    rows = class_permutation(THEIRS, OURS)
    heads, report = converted_heads(state, 2, rows=rows)
    assert not report.mismatched and not report.unknown and not report.missing
    x = torch.randn(3, 8)
    for layer in (0, 1):
        theirs = modules[f"bbox_head.cls_branches.{layer}"](x)
        ours = heads.class_heads[layer](x)
        for i, name in enumerate(OURS):
            assert torch.allclose(ours[:, i], theirs[:, THEIRS.index(name)], atol=1e-6)
    # class 0 of the encoder's head is "any object" in whatever order the classes are
    assert torch.equal(heads.class_heads[2](x), modules["bbox_head.cls_branches.2"](x))


def test_fewer_classes_than_the_checkpoint_has():
    state, modules = official_heads(1)
    heads, report = converted_heads(state, 1, 2, class_permutation(THEIRS, ["ship", "dam"]))
    assert not report.mismatched
    x = torch.randn(3, 8)
    theirs = [modules[f"bbox_head.cls_branches.{i}"](x) for i in (0, 1)]
    assert torch.allclose(heads.class_heads[0](x), theirs[0][:, [2, 4]], atol=1e-6)
    assert torch.allclose(heads.class_heads[1](x)[:, 0], theirs[1][:, 0], atol=1e-6)


def test_label_embedding_is_permuted_with_the_classes():
    state, _ = official_heads(1)
    key = "bbox_head.label_embedding.weight"
    result, _ = convert_state_dict(
        state, ars_detr_rules(), class_rows=class_permutation(THEIRS, OURS)
    )
    embedding = result["denoising.label_embedding.weight"]
    for i, name in enumerate(OURS):
        assert torch.equal(embedding[i], state[key][THEIRS.index(name)])


def test_encoder_head_lands_on_the_encoder_head_of_a_deeper_model():
    """A pre-training checkpoint of 2 layers must not fill decoder layer 2 with its third head."""
    state, modules = official_heads(2)
    heads, report = converted_heads(state, 2, target_layers=6)
    x = torch.randn(3, 8)
    assert torch.equal(heads.class_heads[6](x), modules["bbox_head.cls_branches.2"](x))
    assert "heads.class_heads.2.weight" in report.missing
    assert {int(key.split(".")[2]) for key in report.missing} == {2, 3, 4, 5}


def test_layers_that_the_model_lacks_are_a_mismatch():
    state = {"bbox_head.transformer.decoder.layers.5.norms.0.weight": torch.ones(4)}
    model = {"decoder.layers.0.norm1.weight": torch.ones(4)}
    _, report = convert_state_dict(state, ars_detr_rules(), model)
    assert "no such key" in report.mismatched["decoder.layers.5.norm1.weight"]


def test_label_embedding_is_optional():
    state, _ = official_heads(1)
    _, report = converted_heads(state, 1)
    assert list(report.dropped) == ["bbox_head.label_embedding.weight"]
    assert "denoising" in report.dropped["bbox_head.label_embedding.weight"]


@pytest.mark.parametrize("clockwise_bin", [0, 30, 89, 90, 179])
def test_angle_bins_change_the_direction_of_rotation(clockwise_bin):
    state, _ = official_heads(0)
    bias = torch.zeros(180)
    bias[clockwise_bin] = 9.0
    state["bbox_head.angle_branches.0.bias"] = bias
    state["bbox_head.angle_branches.0.weight"] = torch.zeros(180, 8)
    heads, _ = converted_heads(state, 0)
    angle = heads.angle_coder.decode(heads.angle_heads[0](torch.randn(1, 8)))
    clockwise = clockwise_bin + 0.5 - 90
    assert angle.item() == -clockwise


def test_level_table_loses_the_row_that_is_never_used():
    table = torch.randn(5, 8)
    state, report = convert_state_dict(
        {"bbox_head.transformer.level_embeds": table},
        ars_detr_rules(),
        {"level_embed": torch.zeros(4, 8)},
    )
    assert torch.equal(state["level_embed"], table[:4])
    assert not report.mismatched


def test_pre_training_parts_are_dropped_with_a_reason_and_strangers_are_unknown():
    h = "bbox_head.transformer."
    keys = [
        h + "feature_enhance.layers.0.norm1.weight",
        h + "patch_enc_output.weight",
        h + "pos_trans.weight",
        "bbox_head.feature_embed.layers.0.weight",
        "bbox_head.something_else.weight",
    ]
    _, report = convert_state_dict({k: torch.zeros(1) for k in keys}, ars_detr_rules())
    assert list(report.dropped) == keys[:4]
    assert all(report.dropped.values())
    assert report.unknown == keys[4:]
    for key in keys:
        assert key in str(report)


def test_every_key_of_source_and_model_is_accounted_for():
    source = {name: torch.zeros(2) for name in ("a", "b", "c", "d")}
    rules = [Rule("a", "x"), Rule("b", None, "because"), Rule("c", "y")]
    model = {"x": torch.zeros(2), "y": torch.zeros(3), "z": torch.zeros(1)}
    state, report = convert_state_dict(source, rules, model)
    assert list(state) == ["x"]
    assert report.converted == {"a": "x"}
    assert report.dropped == {"b": "because"}
    assert report.unknown == ["d"]
    assert report.mismatched == {"y": "(2,) vs (3,) in the model"}
    assert report.missing == ["y", "z"]


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.bottom_up."])
def test_detectron2_backbones_keep_their_names(prefix):
    names = ["stem.conv1.weight", "res2.0.shortcut.norm.bias", "res5.2.conv3.weight"]
    source = {prefix + name: torch.zeros(1) for name in names}
    source |= {"roi_heads.box_head.fc1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    state, report = convert_state_dict(source, detectron2_backbone_rules())
    assert list(state) == [f"backbone.{name}" for name in names]
    assert not report.unknown


def test_class_names_must_agree():
    assert class_permutation(["a", "b", "c"], ["c", "a"]) == [2, 0]
    with pytest.raises(ValueError, match=r"no class \['Ship'\].*letter"):
        class_permutation(["ship"], ["Ship"])
    with pytest.raises(ValueError, match="unique"):
        class_permutation(["a", "a"], ["a"])


def test_unknown_source():
    with pytest.raises(ValueError, match="'mmdet'.*ars-detr"):
        rules_for("mmdet", [])


def test_rules_do_not_overlap_on_the_official_keys():
    """First match decides; no key may depend on the order, the encoder's head apart."""
    state, _ = official_heads(2)
    rules = ars_detr_rules(encoder_head=2)
    for key in state:
        matching = [rule for rule in rules if re.fullmatch(rule.pattern, key)]
        expected = 2 if "_branches.2." in key else 1
        assert len(matching) == expected, key
    assert len({rule.pattern for rule in rules}) == len(rules)
    assert not [a for a, b in itertools.pairwise(rules) if a == b]


def pretraining_keys():
    """What an official MutDet pre-training checkpoint has beside the detector."""
    h, layer = "bbox_head.transformer.", "bbox_head.transformer.feature_enhance.layers.2."
    attentions = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    names = [f"{layer}{a}.{p}" for a in attentions for p in projections]
    names += [f"{layer}mlp.lin{i}" for i in (1, 2)] + [f"{layer}norm{i}" for i in (1, 2, 3, 4)]
    names += [h + "patch_enc_output", h + "patch_enc_output_norm"]
    names += [h + "patch_enc_decode.0", h + "patch_enc_decode.2"]
    names += [f"bbox_head.feature_embed.layers.{i}" for i in (0, 1)]
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def test_pre_training_parts_are_kept_for_a_pre_training_model():
    keys = pretraining_keys()
    state = {key: torch.full((2,), float(i)) for i, key in enumerate(keys)}
    result, report = convert_state_dict(state, rules_for("mutdet", state))
    assert not report.unknown and not report.dropped
    assert len(result) == len(keys), "two keys have one target"
    layer = "bbox_head.transformer.feature_enhance.layers.2."
    for theirs, ours in (
        (layer + "cross_attn_token_to_image.k_proj.bias", "object_to_image.k_proj.bias"),
        (layer + "cross_attn_image_to_token.q_proj.weight", "image_to_object.q_proj.weight"),
        (layer + "norm3.weight", "ffn.norm.weight"),
        (layer + "norm4.weight", "norm3.weight"),
    ):
        assert report.converted[theirs] == f"enhancement.layers.2.{ours}"
    _, dropping = convert_state_dict(state, rules_for("ars-detr", state))
    assert list(dropping.dropped) == keys


def test_detector_keys_of_a_pre_training_are_converted_as_those_of_a_detector():
    state, _ = official_heads(2)
    theirs, ours = (
        convert_state_dict(state, rules_for(s, state))[1] for s in ("ars-detr", "mutdet")
    )
    assert theirs == ours
