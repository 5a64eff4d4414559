"""Parity of the whole detector with ARS-DETR's fine-tuning model.

The numbers were observed on the official program; parameters and features follow a rule, so that
no weights have to be shipped. The checkpoint goes through the converter.
"""

from __future__ import annotations

import zlib

import pytest
import torch

from rsd2.modeling import (
    ChannelMapper,
    DeformableEncoder,
    DetectorQuirks,
    HungarianMatcher,
    RotatedDeformableDecoder,
    RotatedDeformableDETR,
    SetCriterion,
)
from rsd2.weights.conversion import convert_state_dict
from rsd2.weights.conversion_detr import ars_detr_rules

ALL_QUIRKS = DetectorQuirks(**dict.fromkeys(DetectorQuirks.__dataclass_fields__, True))


@pytest.fixture(scope="module")
def model(golden_rule) -> RotatedDeformableDETR:
    backbone = golden_rule.GivenFeatures()
    detector = RotatedDeformableDETR(
        backbone=backbone,
        neck=ChannelMapper(backbone.output_shape(), list(golden_rule.CHANNELS)),
        encoder=DeformableEncoder(),
        decoder=RotatedDeformableDecoder(quirks=ALL_QUIRKS),
        num_classes=20,
        criterion=SetCriterion(HungarianMatcher(quirks=ALL_QUIRKS)),
        quirks=ALL_QUIRKS,
    )
    shapes = golden_rule.detector_shapes(num_classes=20, layers=6)
    official = {key: golden_rule.fill(key, shape) for key, shape in shapes.items()}
    state, report = convert_state_dict(official, ars_detr_rules(), detector.state_dict())
    assert not report.unknown and not report.mismatched and not report.dropped
    assert report.missing == ["backbone.dtype_marker"]
    detector.load_state_dict(state, strict=False)
    return detector.eval()


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def observed(request, model):
    detector = model.to(request.param)
    images = detector.preprocess([{"image": torch.zeros(3, 128, 128)}])
    with torch.no_grad():
        levels = detector.neck(detector.backbone(images.tensor))
        encoded = detector.encode(images)
        outputs = detector.detect(encoded, None)
        proposals, layers = outputs.proposals, outputs.layers
        detections = detector.postprocessor.top_detections(
            layers[-1], 0, encoded.geometry.output_scale[0]
        )
    return levels, proposals, layers, detections


def test_the_rule_gives_the_published_parameters(golden_rule):
    key = "bbox_head.transformer.enc_output.weight"
    assert zlib.crc32(key.encode()) == 105029416
    row = golden_rule.fill(key, (256, 256))[0, :3]
    assert torch.allclose(row, row.new_tensor([0.01314709, 0.03371854, -0.05193002]), atol=5e-9)


def test_neck(observed):
    means = [level.abs().mean().item() for level in observed[0]]
    assert means == pytest.approx([0.80952, 0.80677, 0.80002, 0.80708], abs=1e-5)


def test_encoder_proposals(observed):
    proposals = observed[1]
    values = [
        proposals.class_logits.abs().mean().item(),
        proposals.boxes.mean().item(),
        proposals.angle_logits.abs().mean().item(),
    ]
    assert values == pytest.approx([0.74724, 0.28553, 0.82681], abs=1e-5)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (0, (-0.01070, 0.74766, 0.29291, 0.80717)),
        (2, (-0.04064, 0.67291, 0.29675, 0.85452)),
        (5, (0.25172, 0.76823, 0.28854, 0.75863)),
    ],
)
def test_decoder_layers(observed, layer, expected):
    predictions = observed[2][layer]
    values = (
        predictions.class_logits.mean().item(),
        predictions.class_logits.abs().mean().item(),
        predictions.boxes.mean().item(),
        predictions.angle_logits.abs().mean().item(),
    )
    assert values == pytest.approx(expected, abs=1e-5)


def test_top_detections_in_official_coordinates(observed):
    boxes, scores, classes = (x[:5] for x in observed[3])
    expected = torch.tensor(
        [
            (109.5594, 9.4507, 6.7120, 3.1633, -1.5272, 0.9154),
            (58.2849, 24.3545, 14.1776, 15.7271, -1.5272, 0.9147),
            (106.9534, 8.5896, 11.4867, 8.5081, -1.5272, 0.9112),
            (108.6475, 8.5604, 3.2407, 2.5741, -1.5272, 0.9106),
            (62.7140, 23.1160, 5.2127, 6.0450, -1.5272, 0.9098),
        ],
        dtype=torch.float64,
    )
    pixels = 2e-4 if boxes.dtype == torch.float32 else 1e-4
    assert torch.allclose(boxes[:, :4].double(), expected[:, :4], rtol=0, atol=pixels)
    # theirs is clockwise and in radians
    assert torch.allclose(-torch.deg2rad(boxes[:, 4].double()), expected[:, 4], rtol=0, atol=1e-4)
    assert torch.allclose(scores.double(), expected[:, 5], rtol=0, atol=1e-4)
    assert classes.tolist() == [3] * 5
