"""Parity with the official program.

The numbers were observed on it; parameters and inputs follow a rule, so that no weights have to be
shipped. The checkpoint goes through the converter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsd2.conversion import convert_state_dict, rules_for
from rsd2.projects.micml.dla import StaticBranch
from rsd2.projects.micml.dynamic import DynamicBranch
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionModule

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}

# mean, mean of absolute values, element [0, 0, 3, 5], last element of the first map's channels
WITHOUT_MOTION = {
    (64, 64): {
        "hm": (-0.08168471071509213, 0.08168471071509213, -0.08209925092534869, -0.11093766916875496),
        "wh": (0.07864964794676174, 0.09646184150763404, 0.1678355103181525, -0.08050191796510003),
        "reg": (0.051633439159470815, 0.05163720106865538, 0.08649147743400037, 0.044038783262857976),
    },
    (64, 96): {
        "hm": (-0.08180300891289774, 0.08180300891289774, -0.08464570239519073, -0.11125356973093785),
        "wh": (0.0786460287632505, 0.09611667957859789, 0.16747352171146712, -0.0803219671439756),
        "reg": (0.05158399866176485, 0.05158575808725887, 0.08495305182191293, 0.043733357782593046),
    },
}  # fmt: skip
WITH_MOTION = {
    "hm": (-0.08049220623871838, 0.08049220623871838, -0.08155613670332963, -0.11220673147155055),
    "wh": (0.0805649953001423, 0.09629390094598585, 0.17433753948930217, -0.0795119303111772),
    "reg": (0.051043225037675714, 0.05132492069161601, 0.09161056334479185, 0.04470738659536917),
}
MOTION_ALONE = (0.4975061475390368, 0.14348154843896226, 0.5423280628760595, 0.8031249977152611)


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
    return tuple(
        x.item() for x in (value.mean(), value.abs().mean(), value[0, 0, 3, 5], value[0, -1, -1, -1])
    )  # fmt: skip


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
