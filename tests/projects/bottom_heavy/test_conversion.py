"""Checkpoints of OpenMMLab's layout: what is converted computes what was saved.

The other side is built here, from torchvision's ResNet and the formulas of the neck and of the
anchors, under the published key names.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from rsd2.commands.convert_checkpoint import rules_for
from rsd2.config import get_config, load_config
from rsd2.projects.bottom_heavy.conversion import size_major_anchors
from rsd2.weights.conversion import convert_state_dict

MODEL = "BottomHeavy/configs/models/faster_rcnn_bh50_sspnet.py"
CONFIGS = Path(__file__).resolve().parents[3] / "projects" / "BottomHeavy" / "configs"
SCALES, RATIOS = (1.5, 2.5, 3.7, 8.0), (0.4, 0.8, 1.4)
DEPTHS = {"bh50": [7, 6, 2, 1], "r50": [3, 4, 6, 3]}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Named(nn.Module):
    """A module that only holds others, so that their keys get a prefix."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def convolutions(*shapes):
    """Each in a module with the attribute ``conv``, as OpenMMLab's blocks have it."""
    return nn.ModuleList(Named(conv=nn.Conv2d(i, o, k, padding=k // 2)) for i, o, k in shapes)


def official_backbone(name):
    block = torchvision.models.resnet.Bottleneck
    net = torchvision.models.resnet.ResNet(block, DEPTHS[name])
    if name == "bh50":
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.inplanes = 64
        net.layer1 = net._make_layer(block, 64, 7, stride=2)
    net.fc = nn.Identity()
    return net


def official_detector(name):
    aspp = [(256, 64, 1, 1), (256, 64, 3, 2), (256, 64, 3, 5), (256, 64, 1, 1)]
    attention = Named(
        dila_conv=nn.Sequential(
            nn.Conv2d(1024, 256, 3, padding=1),
            Named(
                aspp=nn.ModuleList(
                    nn.Conv2d(i, o, k, dilation=d, padding=d * (k // 2)) for i, o, k, d in aspp
                )
            ),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.BatchNorm2d(256),
        ),
        down_conv=nn.ModuleList(
            nn.Conv2d(256, 256, 3, stride=1 if i == 0 else 2, padding=1) for i in range(4)
        ),
        att_conv=nn.ModuleList(nn.Conv2d(256, 1, 3, padding=1) for _ in range(4)),
    )
    neck = Named(
        lateral_convs=convolutions(*((c, 256, 1) for c in (256, 512, 1024, 2048))),
        fpn_convs=convolutions(*((256, 256, 3) for _ in range(4))),
        CAM=attention,
    )
    rpn = Named(
        rpn_conv=nn.Conv2d(256, 256, 3, padding=1),
        rpn_cls=nn.Conv2d(256, 12, 1),
        rpn_reg=nn.Conv2d(256, 48, 1),
    )
    head = Named(
        shared_fcs=nn.ModuleList([nn.Linear(256 * 49, 1024), nn.Linear(1024, 1024)]),
        fc_cls=nn.Linear(1024, 2),
        fc_reg=nn.Linear(1024, 4),
    )
    model = Named(
        backbone=official_backbone(name), neck=neck, rpn_head=rpn, roi_head=Named(bbox_head=head)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def official_features(model, images):
    net = model.backbone
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    features = []
    for index in range(1, 5):
        x = getattr(net, f"layer{index}")(x)
        features.append(x)
    return features


def official_pyramid(neck, features):
    levels = [lateral.conv(x) for lateral, x in zip(neck.lateral_convs, features)]
    first, context, fuse, norm = neck.CAM.dila_conv
    size = levels[0].shape[-2:]
    x = first(torch.cat([F.interpolate(level, size=size) for level in levels], 1))
    branches = [conv(x) for conv in context.aspp[:3]]
    mean = context.aspp[3](F.adaptive_avg_pool2d(x, 1))
    branches.append(F.interpolate(mean, size=size))
    x = norm(fuse(torch.cat([b.relu() for b in branches], 1))).relu()
    attention = []
    for down, attend in zip(neck.CAM.down_conv, neck.CAM.att_conv):
        x = down(x)
        attention.append(attend(x).sigmoid())
    levels = [(1 + a) * level for a, level in zip(attention, levels)]
    for i in (3, 2, 1):
        size = levels[i - 1].shape[-2:]
        gate = attention[i - 1] * F.interpolate(attention[i], size=size)
        levels[i - 1] = levels[i - 1] + gate * F.interpolate(levels[i], size=size)
    outputs = [(1 + a) * conv.conv(x) for a, conv, x in zip(attention, neck.fpn_convs, levels)]
    return [*outputs, F.max_pool2d(outputs[-1], 1, stride=2)]


def official_proposals(rpn, level, stride):
    """Every place, every anchor by ratio then scale: (score, x0, y0, x1, y1)."""
    x = rpn.rpn_conv(level).relu()
    logits, deltas = rpn.rpn_cls(x)[0], rpn.rpn_reg(x)[0]
    rows = []
    for r, ratio in enumerate(RATIOS):
        for s, scale in enumerate(SCALES):
            a = r * len(SCALES) + s
            width = stride * scale / math.sqrt(ratio)
            height = stride * scale * math.sqrt(ratio)
            dx, dy, dw, dh = deltas[4 * a : 4 * a + 4]
            ys = torch.arange(logits.shape[1])[:, None] * stride + dy * height
            xs = torch.arange(logits.shape[2])[None] * stride + dx * width
            w, h = width * dw.exp(), height * dh.exp()
            rows.append(
                torch.stack([logits[a], xs - w / 2, ys - h / 2, xs + w / 2, ys + h / 2], dim=-1)
            )
    return torch.stack(rows).flatten(0, 2)


def ours(name):
    model = get_config(MODEL).model
    model.backbone.attention_norm = "BN"
    if name == "r50":
        plain = load_config(CONFIGS / "faster_rcnn_r50_sspnet_tiny_person.py").model
        model.backbone.bottom_up = plain.backbone.bottom_up
    return instantiate(model).eval()


def by_score(rows):
    return rows[rows[:, 0].argsort(descending=True)]


@pytest.mark.parametrize("name", ["bh50", "r50"])
def test_a_converted_detector_computes_the_same(name):
    theirs, model = official_detector(name), ours(name)
    source, target = theirs.state_dict(), model.state_dict()
    # 320 with the classifier's two, as published for either backbone
    assert sum(key.startswith("backbone.") for key in source) == 318
    state, report = convert_state_dict(source, rules_for("sspnet", source, target), target)
    assert not report.unknown and not report.mismatched and not report.missing, str(report)
    assert set(report.dropped.values()) == {"a counter that no layer here uses"}
    model.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = official_pyramid(theirs.neck, official_features(theirs, images))
        found = model.backbone(images)
        for i, level in enumerate(expected):
            scale = level.abs().max()
            assert torch.allclose(found[f"p{i + 2}"] / scale, level / scale, atol=1e-4)
        # from here on with features of ordinary size, the same in both
        levels = [torch.randn_like(level) for level in expected]
        rpn = model.proposal_generator
        logits, deltas = rpn.rpn_head(levels)
        anchors = rpn.anchor_generator(levels)
        deltas = [x.unflatten(1, (12, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]
        boxes = rpn._decode_proposals(anchors, deltas)
        for i, level in enumerate(levels):
            scores = logits[i].permute(0, 2, 3, 1).reshape(-1, 1)
            rows = by_score(torch.cat([scores, boxes[i][0]], dim=1))
            stride = 4 * 2**i
            other = by_score(official_proposals(theirs.rpn_head, level, stride))
            assert torch.allclose(rows, other, rtol=1e-4, atol=1e-3)
        pooled = torch.randn(5, 256, 7, 7)
        x = pooled.flatten(1)
        head = theirs.roi_head.bbox_head
        for linear in head.shared_fcs:
            x = linear(x).relu()
        class_logits, box_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        assert torch.allclose(class_logits, head.fc_cls(x), atol=1e-5)
        assert torch.allclose(box_deltas, head.fc_reg(x), atol=1e-5)


def test_the_whole_converted_detector_runs():
    model = ours("bh50")
    images = ImageList.from_tensors([torch.zeros(3, 64, 64)])
    with torch.no_grad():
        proposals, _ = model.proposal_generator(images, model.backbone(images.tensor), None)
    assert len(proposals[0].proposal_boxes)


@pytest.mark.parametrize("prefix", ["backbone.", ""])
@pytest.mark.parametrize("place", ["backbone.", "backbone.bottom_up."])
def test_a_classifier_gives_its_backbone(prefix, place):
    theirs = official_backbone("bh50").eval()
    source = {prefix + key: value for key, value in theirs.state_dict().items()}
    source |= {"head.fc.weight": torch.zeros(1000, 2048), "head.fc.bias": torch.zeros(1000)}
    path = (
        CONFIGS / "classifier_bh50_imagenet.py"
        if place == "backbone."
        else CONFIGS / "faster_rcnn_bh50_sspnet_tiny_person.py"
    )
    model = instantiate(load_config(path).model)
    target = model.state_dict()
    state, report = convert_state_dict(source, rules_for("mmcls-resnet", source, target), target)
    assert not report.unknown and not report.mismatched
    assert not [key for key in report.missing if key.startswith(place)]
    assert "classifier of the pre-training" in report.dropped.values()
    model.load_state_dict(state, strict=False)
    net = model.eval().backbone if place == "backbone." else model.eval().backbone.bottom_up
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = official_features(Named(backbone=theirs), images)[-1]
        assert torch.allclose(net(images)["res5"] / y.abs().max(), y / y.abs().max(), atol=1e-4)


def test_reordering_of_anchors_by_hand():
    # two ratios of three sizes: a0 a1 a2 b0 b1 b2 becomes a0 b0 a1 b1 a2 b2
    reorder = size_major_anchors(3, 2, 1)
    assert reorder(torch.arange(6)).tolist() == [0, 3, 1, 4, 2, 5]
    deltas = torch.arange(24).view(24, 1)
    expected = [4 * a + k for a in (0, 3, 1, 4, 2, 5) for k in range(4)]
    assert size_major_anchors(3, 2, 4)(deltas)[:, 0].tolist() == expected
