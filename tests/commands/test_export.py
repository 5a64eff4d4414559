"""What ``rsd2 export`` refuses, before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf
from torch import nn

from rsd2.commands import export
from rsd2.config import save_config
from rsd2.export.graphs import DetectionGraph
from rsd2.testing import shrink


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = repository / "configs" / "rotated_deformable_detr_small_synthetic.py"
    cfg = shrink(LazyConfig.load(str(config)))
    save_config(cfg, folder / "config.yaml")
    torch.save({"model": instantiate(cfg.model).state_dict()}, folder / "model.pth")
    return folder


@pytest.fixture
def refuses(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Function that runs the command with further arguments and returns its complaint."""

    def run(*arguments: str) -> str:
        flags = ["--config-file", str(trained / "config.yaml"), "--window", "64"]
        flags += ["--weights", str(trained / "model.pth"), "--output", str(tmp_path / "m.onnx")]
        assert export.main([*flags, *arguments]) == 2
        assert not list(tmp_path.glob("*"))
        return capsys.readouterr().err

    return run


def test_unusable_arguments_are_named(refuses) -> None:
    assert "2 names, the model 7" in refuses("--classes", "plane", "ship")
    assert "no such file" in refuses("--weights", "no such file.pth")
    assert "no such folder" in refuses("--check", "no such folder")
    flip = "{_target_: detectron2.data.transforms.RandomFlip}"
    text = refuses(f"dataloader.test.mapper.augmentations=[{flip}]")
    assert "may hold one ResizeShortestEdge" in text and "RandomFlip" in text


def test_weights_that_are_not_finite_are_refused(refuses, trained: Path) -> None:
    state = torch.load(trained / "model.pth", weights_only=True)["model"]
    state["query_embed.weight"] = torch.full_like(state["query_embed.weight"], torch.nan)
    torch.save({"model": state}, trained / "nan.pth")
    assert "nan.pth holds NaN or infinite" in refuses("--weights", str(trained / "nan.pth"))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--batch", "0"], "--batch must be a positive number or any"),
        (["--window", "0"], "--window must be positive"),
        (["--output", "model.pt"], "--output must end in .onnx"),
        (["--output", "nowhere/model.onnx"], "folder nowhere of --output does not exist"),
        (["--for", "deepness"], "needs --resolution"),
        (["--for", "deepness", "--check", "images"], "leave them or --for out"),
        (["--for", "deepness", "--score"], "leave them or --for out"),
    ],
)
def test_a_wrong_command_line_is_refused_by_the_parser(
    flags: list[str], complaint: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        export.main(["--config-file", "c.py", "--output", "model.onnx", *flags])
    assert complaint in capsys.readouterr().err


def test_the_size_of_the_graph_is_that_of_a_resized_window() -> None:
    mapper = OmegaConf.create({"augmentations": []})
    assert export.resizing(mapper) is None and export.input_size(None, 300) == (300, 300)
    assert export.input_size(T.ResizeShortestEdge(800, 800), 1024) == (800, 800)
    assert export.input_size(T.ResizeShortestEdge(800, 1333), 400) == (800, 800)


class OneClass(DetectionGraph):
    """A graph that is only asked for its number of images."""

    num_classes = 1

    def finishing(self) -> dict:
        return {}


def test_the_number_of_windows_is_open_where_it_can_be() -> None:
    graph = OneClass(nn.Identity())
    assert export.batch_size(None, graph, None) is None
    assert export.batch_size(None, graph, "deepness") == 1
    assert export.batch_size("4", graph, "deepness") == 4
    graph.any_batch = False
    assert export.batch_size(None, graph, None) == 1
    assert export.batch_size("any", graph, None) is None
