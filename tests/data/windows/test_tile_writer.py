"""Cutting: counts, problems, refusals, shards, and equal results whatever interrupts the work."""

import json
from pathlib import Path

import pytest
from PIL import Image

from rsd2.data.windows.tile_index import INDEX_NAME, TileIndex
from rsd2.data.windows.tile_writer import write_tiles
from rsd2.data.windows.tiling import TilingParameters
from rsd2.testing import write_tiny_dota

PARAMETERS = TilingParameters(48, 16)


@pytest.fixture
def folder(tmp_path):
    """Four images of 100 x 130, the last one without objects."""
    return write_tiny_dota(tmp_path / "full", image_size=(100, 130), objects_per_image=6)


def _write(folder, output, parameters=PARAMETERS, **options):
    return write_tiles([folder[1]], [folder[0]], output, parameters, progress=False, **options)


def _tree(output):
    files = [path for path in Path(output).rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_index_is_what_lies_there(folder, tmp_path):
    index = _write(folder, tmp_path / "t")
    assert TileIndex.load(tmp_path / "t") == index
    names = {tile.name for tile in index.tiles}
    assert {path.stem for path in (tmp_path / "t" / "images").iterdir()} == names
    assert {path.stem for path in (tmp_path / "t" / "labelTxt").iterdir()} == names
    lines = sum(len(p.read_text().splitlines()) for p in (tmp_path / "t" / "labelTxt").iterdir())
    assert lines == index.counts["objects_in_tiles"] > 18
    assert index.counts["objects"] == 18 and index.counts["images"] == 4
    assert index.parameters["window"] == 48 and index.parameters["out_of_image"] == "keep"


def test_empty_tiles_are_kept_or_dropped_and_counted(folder, tmp_path):
    kept = _write(folder, tmp_path / "a").counts
    dropped = _write(folder, tmp_path / "b", TilingParameters(48, 16, keep_empty=False)).counts
    assert kept["empty_tiles"] > 0 == dropped["empty_tiles"]
    assert dropped["dropped_empty_tiles"] == kept["empty_tiles"]
    assert dropped["tiles"] + dropped["dropped_empty_tiles"] == kept["tiles"]
    assert dropped["images_without_tiles"] == 1
    assert dropped["objects_in_tiles"] == kept["objects_in_tiles"]


def test_objects_that_fit_no_window_are_counted(folder, tmp_path):
    counts = _write(folder, tmp_path / "t", TilingParameters(12, 2)).counts
    assert counts["objects_without_tile"] == 18


def test_changed_inputs_and_lost_tiles_are_cut_again(folder, tmp_path):
    index = _write(folder, tmp_path / "t", TilingParameters(48, 16, keep_empty=False))
    label = folder[0] / "P0000.txt"
    label.write_text(label.read_text().splitlines()[2] + "\n")
    (tmp_path / "t" / "images" / f"{index.tiles[-1].name}.png").unlink()
    (tmp_path / "t" / ".records" / "P0001.json").write_text("{")
    _write(folder, tmp_path / "t", TilingParameters(48, 16, keep_empty=False))
    _write(folder, tmp_path / "fresh", TilingParameters(48, 16, keep_empty=False))
    assert _tree(tmp_path / "t") == _tree(tmp_path / "fresh")


def test_broken_inputs_are_in_the_index_with_file_and_line(folder, tmp_path):
    labels, images = folder
    (images / "P0001.png").write_bytes((images / "P0001.png").read_bytes()[:300])
    (labels / "P0002.txt").unlink()
    with (labels / "P0000.txt").open("a") as stream:
        stream.write("1 2 3\n900 900 910 900 910 910 900 910 ship 0\n")
    index = _write(folder, tmp_path / "t")
    found = {(p["kind"], Path(p["file"]).name, p["line"]) for p in index.report["problems"]}
    assert found == {
        ("unreadable_image", "P0001.png", None),
        ("image_without_label", "P0002.png", None),
        ("fields", "P0000.txt", 9),
        ("outside_image", "P0000.txt", 10),
    }
    assert index.report["counts"]["unreadable_image"] == {"dropped": 1}
    assert index.counts["images_without_tiles"] == 1
    # P0001 has no pixels for its six objects, and one of P0000 lies outside.
    assert index.counts["objects_without_tile"] == 7
    saved = json.loads((tmp_path / "t" / INDEX_NAME).read_text())
    assert saved["report"] == index.report and saved["counts"] == index.counts
    assert _write(folder, tmp_path / "d", missing_label="drop").counts["images"] == 3
    with pytest.raises(ValueError, match="P0002"):
        _write(folder, tmp_path / "e", missing_label="error")
    with pytest.raises(ValueError, match=r"P0000\.txt:10"):
        _write(folder, tmp_path / "f", out_of_image="error")
    assert not (tmp_path / "f" / INDEX_NAME).exists()
    Image.new("RGB", (130, 100)).save(images / "P0001.png")
    mended = _write(folder, tmp_path / "t")
    assert "unreadable_image" not in mended.report["counts"], "a mended image is cut in a new run"


def test_other_policies_other_images_and_equal_names_are_refused(folder, tmp_path):
    _write(folder, tmp_path / "t")
    before = _tree(tmp_path / "t")
    with pytest.raises(ValueError, match="out_of_image: keep there, drop asked for"):
        _write(folder, tmp_path / "t", out_of_image="drop")
    other = write_tiny_dota(tmp_path / "other", num_images=1)
    (other[0] / "P0000.txt").rename(other[0] / "Q.txt")
    (other[1] / "P0000.png").rename(other[1] / "Q.png")
    with pytest.raises(ValueError, match="4 images that are not among the input.*P0000"):
        _write(other, tmp_path / "t")
    assert _tree(tmp_path / "t") == before
    both = write_tiles(
        [folder[1], other[1]], [folder[0], other[0]], tmp_path / "v", PARAMETERS, progress=False
    )
    assert both.counts["images"] == 5
    with pytest.raises(ValueError, match="same name"):
        write_tiles([folder[1]] * 2, [folder[0]] * 2, tmp_path / "w", PARAMETERS, progress=False)
    with pytest.raises(ValueError, match="2 image folders but 1 label folders"):
        write_tiles([folder[1]] * 2, [folder[0]], tmp_path / "w", PARAMETERS, progress=False)
