"""Written and virtual tiles are the same data, and both know their place in the full image."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.datasets import (
    load_dota_instances,
    load_dota_tiles,
    make_virtual_tiles,
    register_dota_instances,
    register_dota_tiles,
    register_virtual_tiles,
)
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.windows.tile_index import INDEX_NAME
from rsd2.data.windows.tile_writer import write_tiles
from rsd2.data.windows.tiling import PAD_COLOR, TilingParameters, crop_window
from rsd2.io.image_io import read_image
from rsd2.testing import TINY_CLASSES, write_tiny_dota

VARIANTS = {
    "plain": TilingParameters(48, 16),
    "scales": TilingParameters(48, 16, rates=(0.5, 1.0, 1.5)),
    "padded": TilingParameters(150, 10),
    "unpadded": TilingParameters(150, 10, padding=False),
    "clipped": TilingParameters(40, 8, min_object_fraction=0.3, clip_objects=True),
    "without empty": TilingParameters(40, 8, keep_empty=False),
}


@pytest.fixture
def folder(tmp_path):
    """Four images of 100 x 130 with a few objects each, the last one without."""
    return write_tiny_dota(tmp_path / "full", image_size=(100, 130), objects_per_image=6)


@pytest.fixture
def names():
    """Datasets named in this list are removed after the test."""
    registered = []
    yield registered
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_and_annotations_of_written_and_virtual_tiles_are_equal(folder, tmp_path, variant):
    parameters = VARIANTS[variant]
    index = write_tiles([folder[1]], [folder[0]], tmp_path / "t", parameters, progress=False)
    written = load_dota_tiles(tmp_path / "t", TINY_CLASSES)
    full = load_dota_instances(*folder, TINY_CLASSES)
    virtual = make_virtual_tiles(full, parameters)
    assert len(written) == len(index.tiles) > 0
    by_name = {record["image_id"]: record for record in virtual}
    assert by_name.keys() == {record["image_id"] for record in written}
    mapper = RotatedDatasetMapper(True, augmentations=[])
    for a in written:
        b = by_name[a["image_id"]]
        assert a["annotations"] == b["annotations"]
        assert (a["height"], a["width"]) == (b["height"], b["width"])
        assert a["tile"] == b["tile"] | {"virtual": False} and b["tile"]["virtual"]
        mapped, cropped = mapper(a), mapper(b)
        assert (mapped["image"] == cropped["image"]).all()
        boxes = mapped["instances"].gt_boxes.tensor
        assert (boxes == cropped["instances"].gt_boxes.tensor).all()
    assert [r["image_id"] for r in full] == ["P0000", "P0001", "P0002", "P0003"]
    assert all("tile" not in r for r in full), "the source is not changed"


def test_tile_pixels_and_objects_are_those_of_the_full_image(folder, tmp_path):
    write_tiles([folder[1]], [folder[0]], tmp_path / "t", VARIANTS["plain"], progress=False)
    full = {r["image_id"]: r for r in load_dota_instances(*folder, TINY_CLASSES)}
    seen = 0
    for record in load_dota_tiles(tmp_path / "t", TINY_CLASSES):
        tile = record["tile"]
        x, y, w, h = tile["x"], tile["y"], tile["width"], tile["height"]
        source = full[tile["source_id"]]
        window = crop_window(read_image(source["file_name"]), np.array([x, y, x + w, y + h]))
        assert (read_image(record["file_name"]) == window).all()
        originals = [np.array(a["poly"]) for a in source["annotations"]]
        for annotation in record["annotations"]:
            moved = np.array(annotation["poly"]) + np.tile([x, y], 4)
            assert min(np.abs(moved - o).max() for o in originals) < 1e-3
            seen += 1
    assert seen > 10


def test_padding_has_its_colour_in_the_file(folder, tmp_path):
    write_tiles([folder[1]], [folder[0]], tmp_path / "t", VARIANTS["padded"], progress=False)
    for record in load_dota_tiles(tmp_path / "t", TINY_CLASSES):
        assert (read_image(record["file_name"])[100:, :] == PAD_COLOR).all()


def test_registered_tiles_know_their_source(folder, tmp_path, names):
    names += ["full", "tiles", "windows"]
    metadata = {"thing_classes": list(TINY_CLASSES)}
    register_dota_instances("full", metadata, *folder)
    register_dota_tiles("tiles", metadata, tmp_path / "t", source_dataset="full")
    register_virtual_tiles("windows", "full", window=48, overlap=16)
    with pytest.raises(FileNotFoundError, match="prepare_dota.py --output"):
        DatasetCatalog.get("tiles")
    write_tiles([folder[1]], [folder[0]], tmp_path / "t", VARIANTS["plain"], progress=False)
    assert len(DatasetCatalog.get("tiles")) == len(DatasetCatalog.get("windows"))
    for name in ("tiles", "windows"):
        found = MetadataCatalog.get(name)
        assert found.source_dataset == "full" and found.evaluator_type == "dota"
        assert found.thing_classes == list(TINY_CLASSES)
    with pytest.raises(ValueError, match="overlap"):
        register_virtual_tiles("never", "full", window=10, overlap=10)
    with pytest.raises(ValueError, match="no thing_classes"):
        register_virtual_tiles("never", "unknown_source")


def test_tiles_of_a_test_set_have_no_annotations(folder, tmp_path):
    write_tiles([folder[1]], None, tmp_path / "t", VARIANTS["plain"], progress=False)
    written = load_dota_tiles(tmp_path / "t", TINY_CLASSES)
    virtual = make_virtual_tiles(
        load_dota_instances(None, folder[1], TINY_CLASSES), VARIANTS["plain"]
    )
    assert len(written) == len(virtual) > 4
    assert all("annotations" not in record for record in written + virtual)


def test_folder_of_another_tool_without_index_is_read_by_names(folder, tmp_path):
    write_tiles([folder[1]], [folder[0]], tmp_path / "t", VARIANTS["plain"], progress=False)
    expected = load_dota_tiles(tmp_path / "t", TINY_CLASSES)
    (tmp_path / "t" / INDEX_NAME).unlink()
    for a, b in zip(expected, load_dota_tiles(tmp_path / "t", TINY_CLASSES)):
        del a["tile"]["source_width"], a["tile"]["source_height"]
        assert a == b
    (tmp_path / "t" / "images" / "other.png").write_bytes(
        (tmp_path / "t" / "images" / f"{expected[0]['image_id']}.png").read_bytes()
    )
    with pytest.raises(ValueError, match="'other' is not a tile name"):
        load_dota_tiles(tmp_path / "t", TINY_CLASSES)


def test_missing_and_replaced_tiles_are_errors(folder, tmp_path):
    write_tiles([folder[1]], [folder[0]], tmp_path / "t", VARIANTS["plain"], progress=False)
    first, second = sorted((tmp_path / "t" / "images").iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes((folder[1] / "P0000.png").read_bytes())
    with pytest.raises(ValueError, match="130 x 100.*48 x 48"):
        load_dota_tiles(tmp_path / "t", TINY_CLASSES)
    first.write_bytes(content)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of .*{second.stem}"):
        load_dota_tiles(tmp_path / "t", TINY_CLASSES)
