"""Parity with the official program.

The numbers were observed on it; parameters and inputs follow a rule, so that no weights have to be
shipped. The checkpoint goes through the converter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsd2.commands.convert_checkpoint import rules_for
from rsd2.projects.micml.dla import StaticBranch
from rsd2.projects.micml.dynamic import DynamicBranch
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionModule
from rsd2.weights.conversion import convert_state_dict

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}

# mean, mean of absolute values, element [0, 0, 3, 5], last element
WITHOUT_MOTION = {
    (64, 64): {
        "hm": (-0.0816847107150, 0.0816847107150, -0.0820992509253, -0.1109376691687),
        "wh": (0.0786496479467, 0.0964618415076, 0.1678355103181, -0.0805019179651),
        "reg": (0.0516334391594, 0.0516372010686, 0.0864914774340, 0.0440387832628),
    },
    (64, 96): {
        "hm": (-0.0818030089128, 0.0818030089128, -0.0846457023951, -0.1112535697309),
        "wh": (0.0786460287632, 0.0961166795785, 0.1674735217114, -0.0803219671439),
        "reg": (0.0515839986617, 0.0515857580872, 0.0849530518219, 0.0437333577825),
    },
}
WITH_MOTION = {
    "hm": (-0.0804922062387, 0.0804922062387, -0.0815561367033, -0.1122067314715),
    "wh": (0.0805649953001, 0.0962939009459, 0.1743375394893, -0.0795119303111),
    "reg": (0.0510432250376, 0.0513249206916, 0.0916105633447, 0.0447073865953),
}
MOTION_ALONE = (0.4975061475390, 0.1434815486390, 0.5423280628760, 0.8031249977152)


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["fp64", "fp32"])
def model(request, official) -> MICML:
    model = MICML(static=StaticBranch(), dynamic=DynamicBranch(motion=MotionModule()))
    model = model.to(request.param)
    state, report = convert_state_dict(official, rules_for("micml", official), model.state_dict())
    assert not report.unknown and not report.mismatched and not report.missing
    model.load_state_dict(state, strict=False)
    return model.eval()


def normal(seed, shape, model):
    z = np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy(z).to(model.pixel_mean.dtype)


def summary(value):
    places = value[0, 0, 3, 5], value[0, -1, -1, -1]
    return tuple(x.item() for x in (value.mean(), value.abs().mean(), *places))


def check(model, size, *, with_motion, expected):
    with torch.no_grad():
        maps = model.predict_maps(normal(7, (1, 3, 5, *size), model), with_motion=with_motion)
    for name, values in expected.items():
        tolerance = TOLERANCE[model.pixel_mean.dtype]
        assert summary(maps[name]) == pytest.approx(values, abs=tolerance, rel=0), name


@pytest.mark.parametrize("size", WITHOUT_MOTION, ids=str)
def test_detector_as_released(model, size):
    check(model, size, with_motion=False, expected=WITHOUT_MOTION[size])


def test_detector_with_motion_and_frozen_normalisation(model):
    check(model, (64, 64), with_motion=True, expected=WITH_MOTION)


def test_motion_module_alone(model):
    with torch.no_grad():
        x = normal(8, (1, 5, 64, 16, 24), model).transpose(1, 2)
        result = model.dynamic.motion(x).transpose(1, 2)
    assert result.shape == (1, 5, 64, 16, 24)
    found = (result.mean(), result.std(), result[0, 0, 0, 0, 0], result.flatten()[-1])
    tolerance = TOLERANCE[model.pixel_mean.dtype]
    assert [x.item() for x in found] == pytest.approx(MOTION_ALONE, abs=tolerance, rel=0)


def test_newest_frames_alone_are_those_of_the_whole_clip(model):
    x = normal(9, (1, 64, 5, 16, 16), model)
    with torch.no_grad():
        assert torch.equal(model.dynamic.motion(x, 3), model.dynamic.motion(x)[:, :, :3])
