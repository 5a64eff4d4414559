"""Scenes that a command line names by lists and items."""

from __future__ import annotations

import json
from pathlib import Path

from rsd2.geo.scene_files import find_scenes


def test_lists_and_items_name_files_beside_them_or_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.tif", "red.tif", "nir.tif"):
        (folder / name).touch()
    assets = {
        "B04": {"href": "red.tif", "roles": ["data"]},
        "B08": {"href": "./nir.tif", "roles": ["data", "reflectance"]},
        "thumbnail": {"href": "a.png", "roles": ["thumbnail"]},
    }
    (folder / "item.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
    remote = ("https://host.example/b.tif", "/vsis3/bucket/c.tif")
    (folder / "list.txt").write_text("\n".join(["# scenes", "a.tif", "item.json", "", *remote]))

    item = (str(folder / "red.tif"), str(folder / "nir.tif"))
    expected = [(str(folder / "a.tif"),), item, *((name,) for name in remote)]
    assert [scene.paths for scene in find_scenes([str(folder / "list.txt")])] == expected
    # What two inputs name is one scene.
    assert find_scenes([str(folder / "a.tif"), str(folder / "list.txt"), remote[0]]) == find_scenes(
        [str(folder / "list.txt")]
    )
