"""Experiments that are compared differ in what they compare, and in nothing else."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.config import load_config
from rsd2.config.checks import config_leaves

CONFIGS = Path(__file__).resolve().parents[3] / "projects" / "BottomHeavy" / "configs"
DESIGN = {"depths", "stage_strides", "stem_kernel_size", "stem_stride"}
PAIRS = [
    ("faster_rcnn_{}50_sspnet_tiny_person", "model.backbone.bottom_up."),
    ("faster_rcnn_{}50_fpn_tiny_person", "model.backbone.bottom_up."),
    ("faster_rcnn_{}50_sspnet_aitod", "model.backbone.bottom_up."),
    ("faster_rcnn_{}18_sspnet_synthetic_tiny", "model.backbone.bottom_up."),
    ("faster_rcnn_{}18_fpn_synthetic_tiny", "model.backbone.bottom_up."),
    ("classifier_{}50_imagenet", "model.backbone."),
    ("classifier_{}18_synthetic_crops", "model.backbone."),
]


def leaves(name):
    return {key: str(value) for key, value in config_leaves(load_config(CONFIGS / f"{name}.py"))}


def differences(first, second):
    a, b = leaves(first), leaves(second)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def is_design(key, prefix):
    return key.startswith(prefix) and key.removeprefix(prefix).split(".")[0] in DESIGN


@pytest.mark.parametrize(("name", "prefix"), PAIRS, ids=[name for name, _ in PAIRS])
def test_backbones_differ_in_their_design_alone(name, prefix):
    changed = differences(name.format("bh"), name.format("r"))
    assert changed and all(is_design(key, prefix) for key in changed), changed


@pytest.mark.parametrize("backbone", ["bh50", "r50"])
def test_necks_differ_in_the_neck_and_its_loss_alone(backbone):
    changed = differences(
        f"faster_rcnn_{backbone}_sspnet_tiny_person", f"faster_rcnn_{backbone}_fpn_tiny_person"
    )
    assert {key.split(".")[1] for key in changed} == {"backbone", "attention_loss"}
    assert not [key for key in changed if "bottom_up" in key and "in_features" not in key]


@pytest.mark.parametrize(
    ("name", "backbone", "neck"),
    [
        ("bh50_sspnet", 10_948_160, 8_992_004),
        ("r50_sspnet", 23_508_032, 8_992_004),
        ("r50_stem_bh50_sspnet", 10_955_840, 8_992_004),
        ("bh_stem_r50_sspnet", 23_500_352, 8_992_004),
    ],
)
def test_the_configured_models_have_the_published_sizes(name, backbone, neck):
    cfg = load_config(CONFIGS / f"faster_rcnn_{name}_tiny_person.py")
    with torch.device("meta"):
        pyramid = instantiate(cfg.model.backbone)
    inside = sum(p.numel() for p in pyramid.bottom_up.parameters())
    assert inside == backbone
    assert sum(p.numel() for p in pyramid.parameters()) - inside == neck


def test_nothing_is_frozen_in_any_detector_of_tiny_person():
    for path in CONFIGS.glob("*_tiny_person.py"):
        assert load_config(path).model.backbone.bottom_up.freeze_at == 0, path
