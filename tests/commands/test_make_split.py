"""tools/make_split.py: nested lists on disk, the classes that a share lacks, wrong names."""

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.commands import make_split as tool
from rsd2.data.datasets import register_dota_instances
from rsd2.data.splits import choose_share, digest_of, read_split
from rsd2.testing import TINY_CLASSES, write_tiny_dota

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_split.py"
NAME = "tiny_to_split"


@pytest.fixture
def dataset(tmp_path):
    folders = write_tiny_dota(tmp_path / "data", num_images=8, objects_per_image=2)
    classes = [*TINY_CLASSES, "submarine"]
    register_dota_instances(NAME, {"thing_classes": classes}, *folders)
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_lists_are_nested_and_described(dataset, tmp_path, capsys):
    output = tmp_path / "splits"
    options = ["--fractions", "0.5", "0.25", "--seed", "3", "--output", str(output)]
    assert tool.main(["--dataset", dataset, *options]) == 0
    quarter, half = (read_split(output / f"{NAME}_seed3_{share}.txt") for share in (25, 50))
    assert len(quarter) == 2 and len(half) == 4 and set(quarter) < set(half)
    ids = [record["image_id"] for record in DatasetCatalog.get(dataset)]
    assert quarter == choose_share(ids, 0.25, 3)
    printed = capsys.readouterr().out
    assert digest_of(quarter) in printed and digest_of(half) in printed
    assert "NO OBJECT of submarine" in printed


def test_wrong_arguments_are_one_line(dataset, tmp_path, capsys):
    for arguments, message in (
        (["--dataset", "nobody"], "no dataset 'nobody'; known are "),
        (["--dataset", dataset, "--fractions", "2"], r"fraction in (0, 1], got 2.0"),
        (["--dataset", "dior_r_test"], "JPEGImages-test"),
    ):
        assert tool.main([*arguments, "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
