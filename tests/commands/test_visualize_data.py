"""The tool draws annotations and loader output into files, and says what it lacks."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rsd2.commands import visualize_data as tool
from rsd2.data.datasets import register_dota_instances
from rsd2.testing import TINY_CLASSES, write_tiny_dota

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from omegaconf import OmegaConf
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper

model, optimizer, lr_multiplier, train = (OmegaConf.create() for _ in range(4))
dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="tiny_to_draw", filter_empty=False),
    mapper=L(RotatedDatasetMapper)(
        is_train=True, augmentations=[L(T.RandomRotation)(angle=[-180, 180])], image_format="BGR"
    ),
    total_batch_size=2,
    num_workers=0,
)
"""


@pytest.fixture
def folder(tmp_path):
    folder = write_tiny_dota(tmp_path / "full")
    register_dota_instances("tiny_to_draw", {"thing_classes": list(TINY_CLASSES)}, *folder)
    yield folder
    DatasetCatalog.remove("tiny_to_draw")
    MetadataCatalog.remove("tiny_to_draw")


def test_folders_and_contact_sheet(folder, tmp_path):
    arguments = ["--labels", str(folder[0]), "--images", str(folder[1]), "--classes", *TINY_CLASSES]
    output = tmp_path / "out"
    assert tool.main([*arguments, "--output", str(output), "--contact-sheet", "2"]) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"P0000.png", "P0001.png", "P0002.png", "P0003.png", "contact_sheet.png"}
    original = Image.open(folder[1] / "P0000.png")
    drawn = Image.open(output / "P0000.png")
    assert drawn.size == original.size and drawn.tobytes() != original.tobytes()
    empty = Image.open(folder[1] / "P0003.png").tobytes()
    assert Image.open(output / "P0003.png").tobytes() == empty, "no object, nothing drawn"


def test_registered_set_shuffled(folder, tmp_path):
    arguments = ["--dataset", "tiny_to_draw", "--num-images", "2", "--shuffle", "3"]
    assert tool.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_loader_output(folder, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    arguments = ["--source", "dataloader", "--config-file", str(config), "--num-images", "3"]
    output = ["--output", str(tmp_path / "out")]
    assert tool.main([*arguments, *output, "dataloader.train.total_batch_size=1"]) == 0
    assert len(list((tmp_path / "out").glob("000?_P000?.png"))) == 3


def test_missing_input_is_named(tmp_path, capsys):
    for arguments, text in (
        ([], "--dataset NAME"),
        (["--source", "dataloader"], "--config-file"),
        (["--images", str(tmp_path / "absent")], "absent"),
        (["--dataset", "unknown_name"], "unknown_name"),
        (["--source", "dataloader", "--config-file", "absent.py"], "absent.py"),
    ):
        assert tool.main([*arguments, "--output", str(tmp_path / "out")]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
