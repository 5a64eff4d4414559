"""The commands from images to embedded pseudo-labels, as a user runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.io.program import program_name
from rsd2.modeling.backbones.small_resnet import small_resnet
from rsd2.projects.mutdet.reduction import load_reduction
from rsd2.synthetic import SceneConfig, write_dota_scenes


@pytest.fixture(scope="module")
def tool(load_module: Callable[[str], ModuleType]) -> Callable[[str], ModuleType]:
    return lambda name: load_module(f"projects/MutDet/tools/{name}.py")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    return write_dota_scenes(folder, 6, SceneConfig(size=96), seed=4, progress=False)


@pytest.fixture(scope="module")
def boxes(
    tool: Callable, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Boxes of the scenes, and the command that made them."""
    folder = tmp_path_factory.mktemp("boxes") / "boxes"
    command = ["--images", str(scenes / "images"), "--output", str(folder), "--num-workers", "0"]
    assert tool("make_pseudo_labels").main(command) == 0
    return folder, command


def test_boxes_and_their_recall(
    tool: Callable, scenes: Path, boxes: tuple[Path, list[str]], capsys: pytest.CaptureFixture
) -> None:
    folder, command = boxes
    labels = str(scenes / "labelTxt")
    assert tool("make_pseudo_labels").main([*command, "--recall-against", labels]) == 0
    out = capsys.readouterr().out
    records, header = read_folder(folder)
    assert f"{header.counts['boxes']} boxes on 6 images" in out and "| all |" in out
    assert header.settings["filters"]["max_density"] == 20.0
    assert "Against the truth" in (folder / "statistics.md").read_text()
    assert len(records) == 6 and sum(len(r.boxes) for r in records) == header.counts["boxes"]


def test_filters_and_shards(
    tool: Callable,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    main = tool("make_pseudo_labels").main
    command = ["--images", str(scenes / "images"), "--output", str(tmp_path), "--num-workers", "0"]
    command += ["--top-k", "3", "--max-density", "none", "--max-aspect", "5"]
    assert main([*command, "--shard", "1/2"]) == 0
    assert "This shard is done" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 0
    records, header = read_folder(tmp_path)
    filters = header.settings["filters"]
    assert (filters["top_k"], filters["max_density"], filters["max_aspect"]) == (3, None, 5.0)
    assert max(len(record.boxes) for record in records) == 3
    assert all((r.boxes[:, 2] <= 5 * r.boxes[:, 3]).all() for r in records)


def test_unreadable_images(
    tool: Callable, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "bad.png").write_bytes(b"no image")
    (images / "good.png").write_bytes((scenes / "images" / "S000000.png").read_bytes())
    command = ["--images", str(images), "--output", str(tmp_path / "out"), "--num-workers", "0"]
    main = tool("make_pseudo_labels").main
    assert main(command) == 2
    assert "bad.png" in capsys.readouterr().err
    assert main([*command, "--unreadable", "skip"]) == 0
    out = capsys.readouterr().out
    assert "UNREADABLE bad.png" in out and "1 images could not be read" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--source", "sam"], "needs --sam-checkpoint"),
        (["--source", "sam", "--sam-checkpoint", "none.pth"], "none.pth"),
        (["--top-k", "0"], "top_k must lie between"),
        (["--recall-against", "nowhere"], "neither a folder nor a registered dataset"),
        (["--scales", "0"], "scales must be"),
    ],
)
def test_errors_are_one_line(
    tool: Callable,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    more: list[str],
    message: str,
) -> None:
    command = ["--images", str(scenes / "images"), "--output", str(tmp_path / "out"), *more]
    assert tool("make_pseudo_labels").main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith(f"{program_name()}: error: ")
    assert not list(tmp_path.rglob("*.npz"))


def test_sam_by_the_command(
    tool: Callable,
    load_module: Callable,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segment_anything = pytest.importorskip("segment_anything")
    tiny = load_module("tests/projects/mutdet/test_sam_proposals.py")
    monkeypatch.setitem(segment_anything.sam_model_registry, "tiny", tiny.build_tiny)
    torch.manual_seed(3)
    torch.save(tiny.build_tiny().state_dict(), tmp_path / "sam.pth")
    command = ["--images", str(scenes / "images"), "--output", str(tmp_path / "out")]
    command += ["--source", "sam", "--sam-model", "tiny", "--amp", "bfloat16"]
    command += ["--sam-checkpoint", str(tmp_path / "sam.pth"), "--points-per-side", "2"]
    command += ["--pred-iou-thresh", "0", "--stability-score-thresh", "0"]
    assert tool("make_pseudo_labels").main(command) == 0
    records, header = read_folder(tmp_path / "out")
    assert len(records) == 6 and header.settings["points_per_side"] == 2
    assert header.settings["model"].startswith("tiny-")
    assert not any(header.settings["filters"].values())  # official: none


def test_embeddings_by_the_command(
    tool: Callable,
    scenes: Path,
    boxes: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    torch.manual_seed(0)
    torch.save(small_resnet(out_features=["res5"]).state_dict(), tmp_path / "small.pth")
    main = tool("extract_embeddings").main
    command = ["--boxes", str(boxes[0]), "--images", str(scenes / "images")]
    command += ["--backbone", "small", "--weights", str(tmp_path / "small.pth")]
    command += ["--crop-size", "32", "--dim", "6", "--clusters", "5", "--no-whiten"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "6 components, 5 clusters" in out and "Statistics:" in out
    records, header = read_folder(tmp_path / "out")
    before = {record.file_name: record for record in read_folder(boxes[0])[0]}
    for record in records:
        np.testing.assert_array_equal(record.boxes, before[record.file_name].boxes)
    assert header.embedding.settings["crops"]["size"] == 32
    assert load_reduction(tmp_path / "out" / "reduction.npz").about["whiten"] is False
    given = ["--reduction", str(tmp_path / "out" / "reduction.npz")]
    assert main([*command, "--output", str(tmp_path / "second"), *given]) == 0
    second = read_folder(tmp_path / "second")[1]
    assert second.embedding.reduction_id == header.embedding.reduction_id
    capsys.readouterr()
    for wrong, message in (
        (["--output", str(tmp_path / "third"), "--clusters", "5000"], "cannot make 5000 clusters"),
        (["--output", str(tmp_path / "out"), "--crop-size", "40"], "choose another folder"),
        (["--output", str(tmp_path / "x"), "--batch-size", "0"], "--batch-size must be"),
        (["--output", str(tmp_path / "x"), "--weights", "none.pth"], "none.pth"),
        (["--output", str(tmp_path / "x"), "--device", "gpu"], "device"),
    ):
        assert main([*command, *wrong]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert message in error


@pytest.mark.parametrize("name", ["make_pseudo_labels", "extract_embeddings"])
def test_help_names_every_option(
    tool: Callable, name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        tool(name).main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "Example::" in text and "--output" in text
