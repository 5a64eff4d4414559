"""Bad input, one kind after the other: the message names file, line and remedy."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from rsd2.config import ConfigError, load_config
from rsd2.data.datasets import load_dota_instances
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.engine import RunError, prepare_output_dir
from rsd2.io.program import program_name
from rsd2.testing import TINY_CLASSES, write_tiny_dota
from rsd2.weights.checkpoint import load_weights
from rsd2.weights.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path):
    return write_tiny_dota(tmp_path / "data")


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ("1 2 3 plane", "4 fields instead of 9 or more: '1 2 3 plane'", "a line is 'x1 y1 x2 y2"),
        ("1 1 9 1 9 9 1 O plane 0", "could not convert string to float", "plain decimal numbers"),
        ("1 1 9 1 9 nan 1 9 plane 0", "coordinates 1 1 9 1 9 nan 1 9", "NaN or infinite coord"),
        ("1 1 9 1 9 9 1 9 submarine 0", "class 'submarine' is not in the", "correct the spelling"),
        ("1 1 9 1 9 9 1 9 plane 4", "'4'", "write the difficult flag as 0, 1 or 2"),
    ],
    ids=["broken line", "no number", "NaN polygon", "unknown class", "difficult flag"],
)
def test_broken_label_line(folder, caplog, line, what, remedy):
    path = folder[0] / "P0001.txt"
    number = len(path.read_text().splitlines()) + 1
    objects = sum(len(x["annotations"]) for x in load_dota_instances(*folder, TINY_CLASSES))
    with path.open("a") as stream:
        stream.write(line + "\n")
    caplog.clear()
    records = load_dota_instances(*folder, TINY_CLASSES)
    assert sum(len(x["annotations"]) for x in records) == objects, "the other lines are read"
    with pytest.raises(ValueError, match="1 problems") as error:
        load_dota_instances(*folder, TINY_CLASSES, on_problem="error")
    for message in (caplog.text, str(error.value)):
        assert f"{path}:{number}: " in message
        assert what in message and remedy in message


def test_missing_and_truncated_image(folder):
    record = load_dota_instances(*folder, TINY_CLASSES)[0]
    mapper = RotatedDatasetMapper(True, augmentations=[])
    path = Path(record["file_name"])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as error:
        mapper(record)
    assert str(error.value) == (
        f"Cannot decode image {path}: image file is truncated; download or convert it again, "
        "or remove it from the dataset."
    )
    path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        mapper(record)
    assert str(error.value) == (
        f"There is no image {path}; correct the path, put the file back, or remove it from the "
        "dataset."
    )
    with pytest.raises(ValueError, match="put the image into the image folder or remove the label"):
        load_dota_instances(*folder, TINY_CLASSES, on_problem="error")


def test_wrong_checkpoint(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": nn.Linear(3, 2).state_dict()}, path)
    model = nn.Linear(4, 2)
    before = model.weight.clone()
    with pytest.raises(CheckpointError) as error:
        load_weights(model, path)
    for text in (str(path), "weight (2, 3) in the file, (2, 4) in the model", "init_strict"):
        assert text in str(error.value)
    assert torch.equal(model.weight, before)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        load_weights(model, path)


def test_config_typo():
    config = ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"
    with pytest.raises(ConfigError) as error:
        load_config(config, ["train.max_itr=3", "model.num_querys=5"])
    for text in ("train.max_itr", "did you mean train.max_iter?", "did you mean model.num_queries"):
        assert text in str(error.value)
    with pytest.raises(ConfigError, match="rotated_deformable_detr_small_synthetic.py"):
        load_config(config.with_name("rotated_deformable_detr_smal_synthetic.py"))


@pytest.mark.parametrize("name", ["prepare_dota", "make_synthetic", "visualize_data", "report_run"])
def test_output_folder_that_cannot_be_made(folder, tmp_path, capsys, name):
    tool = importlib.import_module(f"rsd2.commands.{name}")
    data = ["--images", str(folder[1]), "--labels", str(folder[0])]
    arguments = {
        "prepare_dota": [*data, "--num-workers", "0"],
        "make_synthetic": ["--num-images", "1", "--size", "64", "--num-workers", "0"],
        "visualize_data": [*data, "--classes", *TINY_CLASSES],
        "report_run": ["--run", str(tmp_path)],
    }[name]
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "output"
    assert tool.main([*arguments, "--output", str(output)]) == (1 if name == "report_run" else 2)
    message = capsys.readouterr().err
    assert f"{program_name()}: error: the output folder {output}" in message
    assert "cannot be made (Not a directory); choose another one" in message
    assert (tmp_path / "file").read_text() == "in the way"


def test_output_folder_of_a_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as error:
        prepare_output_dir(str(tmp_path / "file" / "run"))
    assert str(error.value) == (
        f"the output folder {tmp_path / 'file' / 'run'} cannot be written to (Not a directory); "
        "choose another with train.output_dir=..."
    )
