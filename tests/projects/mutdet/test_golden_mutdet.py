"""Parity of the pre-training model with the official program: all 45 losses of the golden set.

Parameters, features and embeddings follow a rule; the checkpoint goes through the converter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances, RotatedBoxes

from rsd2.commands.convert_checkpoint import rules_for
from rsd2.modeling import (
    ChannelMapper,
    DeformableEncoder,
    DetectorQuirks,
    HungarianMatcher,
    RotatedDeformableDecoder,
    RotatedDeformableDETR,
    SetCriterion,
)
from rsd2.projects.mutdet.alignment import ContrastiveAlignment
from rsd2.projects.mutdet.mutdet import MutDet
from rsd2.projects.mutdet.mutual_enhancement import MutualEnhancement
from rsd2.projects.mutdet.quirks import MutDetQuirks
from rsd2.weights.conversion import convert_state_dict

# cx, cy, w, h in pixels and the angle in radians, clockwise
OBJECTS = [
    (
        [(40, 40, 30, 12, 0.3), (80, 60, 24, 20, -1.2), (30, 100, 40, 10, 1.4)]
        + [(100, 100, 16, 8, -0.2)],
        [3, 17, 200, 255],
    ),
    ([(64, 64, 50, 20, 0.8), (20, 30, 18, 9, -0.7), (110, 40, 22, 11, 0.05)], [0, 17, 90]),
]
SUM_OF_ALL = 75326.87

# suffix of our names -> class, L1, GIoU, angle, embedding (none: not a loss there)
OFFICIAL = {
    "": {
        "_enc": (13288.8088, 0.6323, 4.6283, 2.2566, None),
        "_0": (11809.8561, 0.4654, 4.5041, 2.2021, None),
        "": (12622.0274, 0.6238, 4.4141, 2.2051, 1.5507),
        "_dn_0": (306.8208, 0.6771, 6.2141, 2.2224, None),
        "_dn": (345.8473, 0.6396, 6.4131, 2.2440, 1.5699),
    },
    "enhanced_": {
        "_enc": (12458.7534, 0.4384, 3.5716, 2.2226, 1.5681),
        "_0": (12207.7222, 0.3997, 3.7962, 2.2134, None),
        "": (11559.5810, 0.3520, 3.6622, 2.2425, 1.5643),
        "_dn_0": (324.6998, 0.6165, 4.0271, 2.2609, None),
        "_dn": (321.7433, 0.4294, 4.3977, 2.2272, 1.5595),
    },
}
# the same with an L1 cost that compares like with like
CONSISTENT_L1 = {
    "": {
        "_enc": (13288.7323, 0.5942, 4.6751, 2.2664, None),
        "": (12622.2572, 0.5442, 4.1837, 2.2121, 1.5411),
    },
    "enhanced_": {
        "_enc": (12458.7518, 0.4231, 3.5583, 2.2248, 1.5657),
        "": (11559.6057, 0.3994, 3.5749, 2.2472, 1.5642),
    },
}
KINDS = ("class", "l1", "giou", "angle", "embedding")


def named(table: dict[str, dict[str, tuple]]) -> dict[str, float]:
    return {
        f"{prefix}loss_{kind}{suffix}": value
        for prefix, rows in table.items()
        for suffix, row in rows.items()
        for kind, value in zip(KINDS, row)
        if value is not None
    }


def batch() -> list[dict]:
    inputs = []
    for seed, (boxes, labels) in zip((10, 11), OBJECTS):
        tensor = torch.tensor(boxes, dtype=torch.float64)
        tensor[:, 4] = -torch.rad2deg(tensor[:, 4])
        z = torch.from_numpy(np.random.RandomState(seed).standard_normal((len(labels), 256)))
        instances = Instances((128, 128))
        instances.gt_boxes = RotatedBoxes(tensor)
        instances.gt_classes = torch.tensor(labels)
        instances.gt_embeddings = z / z.norm(dim=1, keepdim=True)
        inputs.append({"image": torch.zeros(3, 128, 128), "instances": instances})
    return inputs


@pytest.fixture(scope="module")
def official_state(golden_rule):
    shapes = golden_rule.pretraining_shapes()
    return {key: golden_rule.fill(key, shape) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def build(golden_rule, official_state):
    def build(mixed_l1_formats: bool) -> MutDet:
        quirks = DetectorQuirks(
            random_sampling_init=True,
            unswapped_at_45=True,
            mixed_l1_formats=mixed_l1_formats,
            multiplied_angle_noise=True,
            trained_empty_slots=True,
            boxes_per_axis=True,
        )
        own_quirks = MutDetQuirks(first_denoising_rows=True, raw_query_score=True, zeroed_rim=True)
        backbone = golden_rule.GivenFeatures()
        detector = RotatedDeformableDETR(
            backbone=backbone,
            neck=ChannelMapper(backbone.output_shape(), list(golden_rule.CHANNELS)),
            encoder=DeformableEncoder(2, dropout=0.0),
            decoder=RotatedDeformableDecoder(2, dropout=0.0, quirks=quirks),
            num_classes=256,
            criterion=SetCriterion(HungarianMatcher(quirks=quirks)),
            label_noise=0.0,
            box_noise=0.0,
            angle_noise=0.0,
            quirks=quirks,
        )
        model = MutDet(
            detector,
            ContrastiveAlignment(),
            enhancement=MutualEnhancement(quirks=own_quirks),
            max_objects=None,
            quirks=own_quirks,
        )
        own = model.state_dict()
        rules = rules_for("mutdet", official_state, own)
        state, report = convert_state_dict(official_state, rules, own)
        assert not report.unknown and not report.mismatched and not report.dropped
        assert report.missing == ["backbone.dtype_marker"]
        model.load_state_dict(state, strict=False)
        return model.train()

    return build


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def losses(request, build):
    """Losses with the official and with the consistent L1 cost."""
    results = []
    for official in (True, False):
        model = build(official).to(request.param)
        with torch.no_grad():
            values = model(batch())
        results.append({name: value.item() for name, value in values.items()})
    return results


def compare(observed: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        # sums over 87,040 and more logits are float32 whatever the model is: fvcore's focal loss
        tolerance = 1e-6 * value if "class" in name else 1e-4
        assert observed[name] == pytest.approx(value, abs=tolerance), name


def test_the_official_losses(losses):
    observed, _ = losses
    expected = named(OFFICIAL)
    assert set(observed) == set(expected)
    assert len(expected) == 45
    compare(observed, expected)
    assert sum(observed.values()) == pytest.approx(SUM_OF_ALL, rel=1e-6)


def test_losses_with_a_consistent_l1_cost(losses):
    _, observed = losses
    compare(observed, named(CONSISTENT_L1))
