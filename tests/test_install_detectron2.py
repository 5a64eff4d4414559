"""``rsd2 install-detectron2``, offline: a tiny wheel stands in for the one that carries it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

INIT = """# Copyright (c) Facebook, Inc. and its affiliates.
from LabGym.detectron2.config import get_cfg
__version__ = "0.6"
TARGET = "LabGym.detectron2.modeling.GeneralizedRCNN"
"""


@pytest.fixture
def tool(load_module):
    return load_module("rsd2/commands/install_detectron2.py")


@pytest.fixture
def carrier(tmp_path: Path) -> Path:
    path = tmp_path / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("LabGym/__init__.py", "raise RuntimeError('must never be imported')\n")
        archive.writestr("LabGym/detectron2/__init__.py", INIT)
        archive.writestr("LabGym/detectron2/config.py", "def get_cfg():\n    return 1\n")
        archive.writestr("LabGym/detectron2/zoo/base.yaml", "MODEL: LabGym/detectron2/x\n")
        archive.writestr("labgym-3.1.2.dist-info/METADATA", "Name: LabGym\n")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import LabGym.detectron2 as d", "import detectron2 as d"),
        ('"LabGym.detectron2.data"', '"detectron2.data"'),
        ("LabGym/detectron2/csrc", "detectron2/csrc"),
        ("from detectron2 import x", "from detectron2 import x"),
        ("LabGymXdetectron2 MyLabGym.detectron2", "LabGymXdetectron2 MyLabGym.detectron2"),
    ],
)
def test_restore_package_name(tool: ModuleType, text: str, expected: str) -> None:
    assert tool.restore_package_name(text) == expected
    assert tool.restore_package_name(expected) == expected


def test_wrong_hash_is_refused_with_both_hashes(tool: ModuleType, carrier: Path) -> None:
    tool.check_hash(carrier, sha256(carrier))
    with pytest.raises(tool.InstallError, match=f"{sha256(carrier)}, expected {'0' * 64}"):
        tool.check_hash(carrier, "0" * 64)
    with pytest.raises(tool.InstallError, match="no such file"):
        tool.check_hash(carrier.with_name("absent.whl"))


def test_takes_its_folder_alone(tool: ModuleType, carrier: Path) -> None:
    files, changed = tool.read_carried_package(carrier)
    assert set(files) == {
        "detectron2/__init__.py",
        "detectron2/config.py",
        "detectron2/zoo/base.yaml",
    }
    assert changed == ["detectron2/__init__.py", "detectron2/zoo/base.yaml"]
    assert b"LabGym" not in b"".join(files.values())
    assert files["detectron2/__init__.py"].startswith(b"# Copyright (c) Facebook")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("LabGym/detectron2/a.py", "from LabGym import tools\n", "still names its carrier"),
        ("LabGym/detectron2/../../a.py", "", "unsafe path"),
        ("LabGym/other.py", "", "has no folder LabGym/detectron2/"),
        ("LabGym/detectron2/a.py", b"\xff\xfe", "cannot read"),
    ],
)
def test_unexpected_contents_are_refused(
    tool: ModuleType, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / "odd.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    with pytest.raises(tool.InstallError, match=message):
        tool.read_carried_package(path)


def test_no_wheel_at_all_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "text.whl"
    path.write_text("not a zip file")
    with pytest.raises(tool.InstallError, match="cannot read"):
        tool.read_carried_package(path)


def test_wheel_is_an_ordinary_distribution(tool: ModuleType, carrier: Path, tmp_path: Path) -> None:
    wheel = tool.build_wheel(*tool.read_carried_package(carrier), tmp_path)
    info = "detectron2-0.6+python.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    record = content[f"{info}/RECORD"].decode().splitlines()
    assert sorted(line.split(",")[0] for line in record) == sorted(content)
    for line in record:
        name, digest, size = line.split(",")
        if name.endswith("RECORD"):
            assert digest == size == ""
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(content[name]).digest())
        assert digest == "sha256=" + expected.rstrip(b"=").decode()
        assert int(size) == len(content[name])
    assert b"Apache License" in content[f"{info}/licenses/LICENSE"]
    assert b"detectron2/__init__.py" in content[f"{info}/licenses/NOTICE"]
    metadata = content[f"{info}/METADATA"].decode()
    assert "License: Apache-2.0" in metadata
    assert "Version: 0.6+python" in metadata
    assert "Requires-Dist: fvcore" in metadata


def test_pip_installs_the_wheel_and_nothing_else(
    tool: ModuleType, carrier: Path, tmp_path: Path
) -> None:
    wheel = tool.build_wheel(*tool.read_carried_package(carrier), tmp_path)
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    assert {path.name for path in target.iterdir()} == {
        "detectron2",
        "detectron2-0.6+python.dist-info",
    }
    code = "import detectron2; print(detectron2.TARGET, detectron2.get_cfg())"
    output = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(target)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert output.stdout == "detectron2.modeling.GeneralizedRCNN 1\n"


@pytest.fixture
def calls(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """Pip's calls, which are recorded and not made; the marker lies in a folder of the test."""
    made: list[tuple] = []
    monkeypatch.setattr(tool, "run_pip", lambda *arguments: made.append(arguments))
    monkeypatch.setattr(tool, "installing_marker", lambda: tmp_path / "detectron2.installing")
    monkeypatch.setattr(tool, "is_ours", lambda: False)
    return made


def answer(monkeypatch: pytest.MonkeyPatch, tool: ModuleType, *answers: tuple[str, str]) -> None:
    remaining = list(answers)
    monkeypatch.setattr(tool, "probe_detectron2", lambda: remaining.pop(0))


def test_working_detectron2_is_left_alone(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, tool, ("works", "somewhere/detectron2/__init__.py"))
    assert tool.main(["--source", "git"]) == 0
    assert calls == []
    assert "left alone: somewhere" in capsys.readouterr().out


def test_broken_detectron2_of_the_user_is_not_replaced(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, tool, ("broken", "ImportError: undefined symbol"))
    assert tool.main([]) == 1
    assert calls == []
    message = capsys.readouterr().err
    assert "undefined symbol" in message
    assert "pip uninstall detectron2" in message


@pytest.mark.parametrize("state", ["works", "broken", "absent"])
def test_broken_off_installation_is_done_again(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    carrier: Path,
    tmp_path: Path,
    state: str,
) -> None:
    marker = tmp_path / "detectron2.installing"
    marker.touch()
    monkeypatch.setattr(tool, "check_hash", lambda path: None)
    answer(monkeypatch, tool, (state, "half"), ("works", "whole"))
    assert tool.main(["--wheel", str(carrier)]) == 0
    (arguments,) = calls
    assert {"--no-deps", "--force-reinstall", "--no-index"} <= set(arguments)
    assert not marker.exists()


def test_failed_pip_leaves_the_marker(
    tool: ModuleType, calls: list, monkeypatch: pytest.MonkeyPatch, carrier: Path, tmp_path: Path
) -> None:
    def fail(*arguments: str) -> None:
        raise tool.InstallError("no space left")

    monkeypatch.setattr(tool, "run_pip", fail)
    monkeypatch.setattr(tool, "check_hash", lambda path: None)
    answer(monkeypatch, tool, ("absent", ""))
    assert tool.main(["--wheel", str(carrier)]) == 1
    assert (tmp_path / "detectron2.installing").exists()


def test_damaged_wheel_installs_nothing(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    carrier: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, tool, ("absent", ""))
    assert tool.main(["--wheel", str(carrier)]) == 1
    assert calls == []
    assert tool.CARRIER_SHA256 in capsys.readouterr().err


def test_missing_requirements_are_named(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    carrier: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tool, "check_hash", lambda path: None)
    answer(monkeypatch, tool, ("absent", ""), ("broken", "No module named 'fvcore'"))
    assert tool.main(["--wheel", str(carrier)]) == 1
    message = capsys.readouterr().err
    assert "fvcore" in message
    assert "requirements.txt" in message


def test_git_source_asks_for_its_tools(
    tool: ModuleType,
    calls: list,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, tool, ("absent", ""))
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    assert tool.main(["--source", "git"]) == 1
    assert calls == []
    assert "git and a C++ compiler" in capsys.readouterr().err


def test_git_source_builds_in_this_environment(
    tool: ModuleType, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, tool, ("absent", ""), ("works", "built"))
    monkeypatch.setattr(tool.shutil, "which", lambda name: name)
    assert tool.main(["--source", "git"]) == 0
    (arguments,) = calls
    assert "--no-build-isolation" in arguments
    assert arguments[-1] == f"detectron2 @ git+{tool.GIT_URL}@{tool.GIT_REF}"


def test_probe_sees_an_absent_and_a_broken_package(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "path" / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('damaged')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    assert tool.probe_detectron2() == ("broken", "OSError: damaged")
    (package / "__init__.py").write_text("")
    assert tool.probe_detectron2() == ("works", str(package / "__init__.py"))
