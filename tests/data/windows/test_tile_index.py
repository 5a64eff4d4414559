"""The index survives its file, and broken ones are refused with the way out."""

import pytest

from rsd2.data.windows.tile_index import INDEX_NAME, Tile, TileIndex, TileSource


def _index():
    return TileIndex(
        parameters={"window": 10},
        has_labels=True,
        sources=[TileSource("a", 20, 10, 5, 1, 2), TileSource("b", 0, 0, 3, 3, 0)],
        tiles=[Tile("a__10__0___0", "a", 0, 0, 10, 10, 4, 1), Tile("t", "a", 5, 0, 10, 10, 0, 0)],
        report={"counts": {"unreadable_image": {"dropped": 1}}, "problems": []},
    )


def test_round_trip_and_counts(tmp_path):
    (tmp_path / INDEX_NAME).write_text(_index().to_json())
    assert TileIndex.load(tmp_path) == _index()
    assert _index().counts == {
        "images": 2,
        "images_without_tiles": 1,
        "tiles": 2,
        "empty_tiles": 1,
        "dropped_empty_tiles": 2,
        "objects": 8,
        "objects_without_tile": 4,
        "objects_in_tiles": 4,
        "truncated_in_tiles": 1,
    }


def test_missing_broken_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="unfinished.*prepare_dota"):
        TileIndex.load(tmp_path)
    for content in ("{", "{}", '{"format": "other"}', _index().to_json().replace('"x"', '"xx"')):
        (tmp_path / INDEX_NAME).write_text(content)
        with pytest.raises(ValueError, match=r"tiles\.json.*again"):
            TileIndex.load(tmp_path)
