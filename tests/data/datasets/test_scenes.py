"""Scenes with labels as datasets: registration, windows, pixels, and scores of whole scenes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances, RotatedBoxes

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
pytest.importorskip("pyproj")

from rasterio.transform import Affine  # noqa: E402

from rsd2.data.datasets import load_scenes, register_scenes  # noqa: E402
from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper  # noqa: E402
from rsd2.evaluation import DotaEvaluator  # noqa: E402
from rsd2.geo import Radiometry, RadiometryError, Raster  # noqa: E402
from rsd2.geo.scene_files import SceneFiles  # noqa: E402
from rsd2.structures import boxes_to_corners  # noqa: E402

HEIGHT, WIDTH = 150, 200
TRANSFORM = Affine.translation(565000, 5933000) @ Affine.rotation(20) @ Affine.scale(2, -2)
BOXES = [[60.0, 40.0, 30.0, 10.0, 25.0], [150.0, 100.0, 24.0, 8.0, -70.0]]
RULE = Radiometry(scaling="percentile", percentiles=(0, 100))


def write_scene(path: Path, dtype: str = "uint16") -> Path:
    """A ramp from 1000 to about 3000, so that each pixel tells where it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = (1000 + 10 * x + y).astype(dtype) if dtype == "uint16" else (x % 250).astype(dtype)
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=3, dtype=dtype,
        crs="EPSG:32632", transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(np.stack([values] * 3))
    return path


def write_geojson(path: Path, names: tuple[str, ...] = ("ship", "boat")) -> Path:
    """The boxes in longitude and latitude, as RFC 7946 wants them."""
    from pyproj import Transformer

    to_degrees = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    features = []
    for corners, name in zip(boxes_to_corners(torch.tensor(BOXES).double()).tolist(), names):
        ring = [to_degrees.transform(*(TRANSFORM @ tuple(corner))) for corner in corners]
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "properties": {"kind": name}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "port.tif")


@pytest.fixture
def registered(scene: Path, tmp_path: Path):
    """Names of the datasets of whole scenes and of windows."""
    labels = write_geojson(tmp_path / "port.geojson")
    name = f"scenes of {tmp_path.name}"
    tiles = register_scenes(
        name, scene, labels, ["boat", "ship"], window=96, overlap=32, class_column="kind",
        radiometry=RULE,
    )  # fmt: skip
    yield name, tiles
    for one in (name, tiles):
        DatasetCatalog.remove(one)
        MetadataCatalog.remove(one)


def test_labels_with_coordinates_come_back_as_pixels(registered):
    (record,) = DatasetCatalog.get(registered[0])
    assert (record["height"], record["width"], record["image_id"]) == (HEIGHT, WIDTH, "port")
    found = np.array([a["bbox"] for a in record["annotations"]])
    np.testing.assert_allclose(found, BOXES, atol=1e-4)
    assert [a["category_id"] for a in record["annotations"]] == [1, 0]
    assert record["raster"]["measured"]["low"] == [1000.0] * 3
    assert record["raster"]["radiometry"]["scaling"] == "percentile"


def test_every_window_shows_the_pixels_that_prediction_sees(registered, scene):
    tiles = DatasetCatalog.get(registered[1])
    assert len(tiles) > 1 and not list(scene.parent.glob("*.npy"))
    mapper = RotatedDatasetMapper(is_train=True, augmentations=[])
    mapper = pickle.loads(pickle.dumps(mapper))  # as a loader's worker gets it
    with Raster(scene) as raster:
        fixed = RULE.measure(raster)
        for tile in tiles:
            mapped = mapper(tile)
            place = tile["tile"]
            expected = raster.read_window(place["y"], place["x"], 96, 96, fixed).pixels
            assert np.array_equal(mapped["image"].permute(1, 2, 0).numpy(), expected)
            assert len(mapped["instances"]) == len(tile["annotations"])
    assert any(tile["annotations"] for tile in tiles)


def test_the_rule_of_the_mapper_has_the_last_word(registered):
    tile = DatasetCatalog.get(registered[1])[0]
    rule = Radiometry(scaling="range", low=(1000,), high=(1255,))
    image = RotatedDatasetMapper(is_train=False, augmentations=[], radiometry=rule)(tile)["image"]
    # At the left border of the scene the ramp counts rows.
    assert image[0, :50, 0].tolist() == list(range(50))


def test_scale_enlarges_pixels_and_labels_alike(scene, tmp_path):
    labels = write_geojson(tmp_path / "l.geojson", ("ship", "ship"))
    files = SceneFiles("port", (str(scene),))
    (record,) = load_scenes(
        [files], [labels], ["ship"], radiometry=RULE, scale=3.0, class_column="kind"
    )
    assert (record["height"], record["width"]) == (3 * HEIGHT, 3 * WIDTH)
    found = np.array([a["bbox"] for a in record["annotations"]])
    np.testing.assert_allclose(found, np.array(BOXES) * [3, 3, 3, 3, 1], atol=1e-3)
    whole = RotatedDatasetMapper(is_train=False, augmentations=[])(record)["image"]
    assert whole.shape == (3, 3 * HEIGHT, 3 * WIDTH)


def test_numbers_without_a_rule_are_refused_at_registration(scene):
    with pytest.raises(RadiometryError, match=r"port\.tif holds uint16 .* radiometry=Radiometry"):
        register_scenes("refused", scene, None, ["ship"])
    assert "refused" not in DatasetCatalog.list()


@pytest.mark.parametrize(
    ("scenes", "labels", "error", "message"),
    [
        ("absent.tif", None, FileNotFoundError, "absent.tif"),
        ("port.tif", "absent.geojson", FileNotFoundError, "absent.geojson"),
        ("port.tif", ["a.json", "b.json"], ValueError, "2 files of labels for 1 scenes"),
        ([], None, ValueError, "names no raster"),
    ],
)
def test_what_is_missing_is_named(scene, tmp_path, scenes, labels, error, message):
    def place(name):
        return name if name is None else tmp_path / name

    scenes = place(scenes) if isinstance(scenes, str) else scenes
    labels = [place(one) for one in labels] if isinstance(labels, list) else place(labels)
    with pytest.raises(error, match=message):
        register_scenes("missing", scenes, labels, ["ship"], radiometry=RULE)


def test_a_misspelt_option_is_refused_at_registration(scene):
    with pytest.raises(ValueError, match="no option 'class_colum'; they have radiometry, class_co"):
        register_scenes("misspelt", scene, None, ["ship"], radiometry=RULE, class_colum="kind")
    assert "misspelt" not in DatasetCatalog.list()


def test_a_folder_of_labels_is_searched_by_the_names_of_the_scenes(scene, tmp_path, caplog):
    folder = tmp_path / "labels"
    folder.mkdir()
    write_geojson(folder / "port.geojson", ("ship", "ship"))
    write_scene(tmp_path / "sea.tif")
    name = f"folders of {tmp_path.name}"
    tiles = register_scenes(
        name, [scene, tmp_path / "sea.tif"], folder, ["ship"], radiometry=RULE, class_column="kind"
    )
    assert "No labels of sea" in caplog.text
    port, sea = DatasetCatalog.get(name)
    assert len(port["annotations"]) == 2
    assert sea["annotations"] == [], "a scene without a file among the labels shows no object"
    for one in (name, tiles):
        DatasetCatalog.remove(one)
        MetadataCatalog.remove(one)


def test_objects_of_other_classes_are_left_out_and_counted(scene, tmp_path, caplog):
    labels = write_geojson(tmp_path / "l.geojson")
    files = SceneFiles("port", (str(scene),))
    (record,) = load_scenes([files], [labels], ["ship"], radiometry=RULE, class_column="kind")
    assert len(record["annotations"]) == 1
    assert "1 objects are of classes that are not in the list and are left out: 1 boat" in (
        caplog.text
    )


def test_a_scene_that_has_changed_is_refused(registered, scene):
    tile = DatasetCatalog.get(registered[1])[0]
    with rasterio.open(
        scene, "w", driver="GTiff", height=10, width=20, count=3, dtype="uint16",
        crs="EPSG:32632", transform=TRANSFORM,
    ):  # fmt: skip
        pass
    mapper = RotatedDatasetMapper(is_train=False, augmentations=[])
    with pytest.raises(ValueError, match="20 x 10 pixels, but its dataset says 200 x 150"):
        mapper(tile)


def test_the_evaluator_scores_whole_scenes_from_windows(registered):
    """A detector that finds in each window what it shows scores 100 on the scene."""
    evaluator = DotaEvaluator(registered[1], nms_threshold=0.3)
    evaluator.reset()
    for tile in DatasetCatalog.get(registered[1]):
        found = Instances((tile["height"], tile["width"]))
        boxes = [a["bbox"] for a in tile["annotations"] if a["difficult"] == 0]
        found.pred_boxes = RotatedBoxes(torch.tensor(boxes).reshape(-1, 5))
        found.scores = torch.full((len(boxes),), 0.9)
        classes = [a["category_id"] for a in tile["annotations"] if a["difficult"] == 0]
        found.pred_classes = torch.tensor(classes, dtype=torch.int64)
        evaluator.process([tile], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)


def test_a_plain_data_set_of_rasters_is_read_by_the_rule_of_the_mapper(scene):
    """DOTA's folders may hold 16-bit TIFFs too: the mapper's rule makes colours of them."""
    rule = Radiometry(scaling="range", low=(1000,), high=(1255,))
    mapper = RotatedDatasetMapper(is_train=False, augmentations=[], radiometry=rule)
    whole = {"file_name": str(scene), "height": HEIGHT, "width": WIDTH, "image_id": "port"}
    image = mapper(whole)["image"]
    assert image.shape == (3, HEIGHT, WIDTH) and image[0, :5, 1].tolist() == [10, 11, 12, 13, 14]

    place = {"x": 1, "y": 2, "width": 8, "height": 8, "virtual": True}
    place |= {"source_height": HEIGHT, "source_width": WIDTH}
    tile = mapper({**whole, "height": 8, "width": 8, "tile": place})["image"]
    assert torch.equal(tile, image[:, 2:10, 1:9])
    with pytest.raises(ValueError, match="its dataset says 200 x 149"):
        mapper({**whole, "height": HEIGHT - 1})
