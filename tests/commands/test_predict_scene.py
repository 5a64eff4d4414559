"""From scenes to maps by the command line's own functions, with a detector that knows the truth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
pytest.importorskip("pyproj")

from rasterio.transform import Affine  # noqa: E402

from rsd2.commands import predict_scene  # noqa: E402
from rsd2.commands.predict_scene import get_parser, run_all, search_in_turn  # noqa: E402
from rsd2.commands.scene_fleet import SceneWorker, search_by_workers  # noqa: E402
from rsd2.commands.scene_run import SceneRun, open_scene, search_scene  # noqa: E402
from rsd2.data.mappers.views import Views  # noqa: E402
from rsd2.geo.scene_files import SceneFiles, find_scenes  # noqa: E402
from rsd2.geo.vector_files import read_metadata, read_vector_file  # noqa: E402
from rsd2.inference.image_detector import ImageDetector  # noqa: E402
from rsd2.inference.sliding_window import WindowParameters  # noqa: E402
from rsd2.structures import boxes_to_corners  # noqa: E402
from tests.fake_pool import FakePool  # noqa: E402

HEIGHT, WIDTH = 300, 400
MARKS = [(60, 40), (200, 90), (330, 250), (128, 128), (250, 180)]
TRANSFORM = Affine(2.0, 0, 500000, 0, -2.0, 6_600_000)


class FindsMarks:
    """Reports a box of 20 x 8 px at 30 degrees around every marked pixel that a window shows."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls, self.stop_after = 0, stop_after

    def __call__(self, images: list[np.ndarray]) -> list[tuple[torch.Tensor, ...]]:
        results = []
        for image in images:
            self.calls += 1
            if self.stop_after is not None and self.calls > self.stop_after:
                raise KeyboardInterrupt
            y, x = np.nonzero(image[:, :, 0] == 255)
            boxes = [[cx + 0.5, cy + 0.5, 20, 8, 30] for cx, cy in zip(x, y)]
            results.append(
                (
                    torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5),
                    torch.full((len(boxes),), 0.9, dtype=torch.float64),
                    torch.zeros(len(boxes), dtype=torch.int64),
                )
            )
        return results


def write_scene(path: Path, rows_without_data: int = 0, **profile: object) -> Path:
    pixels = np.full((HEIGHT, WIDTH), 100, np.uint8)
    for x, y in MARKS:
        pixels[y, x] = 255
    pixels[:rows_without_data] = 0
    options = {"crs": "EPSG:32633", "transform": TRANSFORM, "nodata": 0, **profile}
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=1, dtype="uint8", **options
    ) as dataset:
        dataset.write(pixels, 1)
    return path


def make_run(
    detect: Callable, tmp_path: Path, *flags: str, shard: tuple[int, int] = (0, 1), **changes: int
) -> SceneRun:
    required = ["--config-file", "c", "--input", "i", "--output", str(tmp_path / "map.gpkg")]
    args = get_parser().parse_args([*required, *flags])
    parameters = WindowParameters(**{"window": 128, "overlap": 32, **changes})
    radiometry = predict_scene.read_radiometry(args, None)
    return SceneRun(args, parameters, radiometry, detect, ["ship"], {"weights": "w"}, shard)


def search(scene: Path, path: Path, run: SceneRun) -> str:
    return search_scene(SceneFiles(scene.stem, (str(scene),)), path, run)


def test_a_map_holds_every_object_once_with_its_place_and_size(tmp_path: Path) -> None:
    scene, path = write_scene(tmp_path / "scene.tif"), tmp_path / "map.gpkg"
    sentence = search(scene, path, make_run(FindsMarks(), tmp_path))
    assert "5 detections in 12 windows" in sentence

    shapes, columns, crs = read_vector_file(path)
    assert "32633" in crs and set(columns["class"]) == {"ship"}
    centers = np.array([shape.centroid.coords[0] for shape in shapes])
    expected = np.array([TRANSFORM @ (x + 0.5, y + 0.5) for x, y in MARKS])
    order, wanted = np.lexsort(centers.T), np.lexsort(expected.T)
    np.testing.assert_allclose(centers[order], expected[wanted], atol=1e-6)
    # 20 x 8 pixels of two metres; UTM shrinks lengths by up to 0.04 percent.
    np.testing.assert_allclose(columns["length_m"], 40, rtol=1e-3)
    np.testing.assert_allclose(columns["width_m"], 16, rtol=1e-3)
    np.testing.assert_allclose(columns["azimuth"], 60, atol=1.0)  # the grid's north is not true
    assert path.with_suffix(".png").is_file() and not path.with_name("map.gpkg.parts").exists()

    metadata = read_metadata(path)
    assert metadata["windows"]["seams"] == "drop" and metadata["radiometry"]["scaling"] == "uint8"
    assert "up to date" in search(scene, path, make_run(FindsMarks(), tmp_path))


@pytest.mark.parametrize(("window", "is_noted"), [(128, False), (300, True)])
def test_windows_that_show_more_than_in_training_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture, window: int, is_noted: bool
) -> None:
    trained = Views((128, 128), (1, 1))
    detect = ImageDetector(torch.nn.Identity(), trained=trained, in_shares=True)
    scene = SceneFiles("scene", (str(write_scene(tmp_path / "scene.tif")),))
    open_scene(scene, make_run(detect, tmp_path, window=window)).raster.close()
    text = capsys.readouterr().err
    assert ("--window 128" in text) == ("too large" in text) == is_noted


def test_rows_parts_shards_and_interruptions_change_no_byte(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    names = [f"{name}/map.gpkg" for name in ("whole", "rows", "shards", "interrupted")]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir()

    search(scene, paths[0], make_run(FindsMarks(), tmp_path))
    search(scene, paths[1], make_run(FindsMarks(), tmp_path, "--rows-per-part", "3"))
    for rank in (1, 0):
        sentence = search(scene, paths[2], make_run(FindsMarks(), tmp_path, shard=(rank, 2)))
        assert ("waits" in sentence) == (rank == 1)

    detect = FindsMarks(stop_after=11)
    with pytest.raises(KeyboardInterrupt):
        search(scene, paths[3], make_run(detect, tmp_path))
    assert not paths[3].exists()
    detect = FindsMarks()
    search(scene, paths[3], make_run(detect, tmp_path))
    assert detect.calls == 4, "two of three rows of four windows were done"
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("window, overlap", [(128, 40), (96, 48), (1024, 200)])
def test_windows_change_no_object(tmp_path: Path, window: int, overlap: int) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    found = []
    for size, shared in ((128, 32), (window, overlap)):
        path = tmp_path / f"{size}_{shared}.gpkg"
        search(scene, path, make_run(FindsMarks(), tmp_path, window=size, overlap=shared))
        shapes, columns, _ = read_vector_file(path)
        found.append((sorted(shape.wkt for shape in shapes), sorted(columns["azimuth"])))
    assert found[0] == found[1]


def test_windows_without_data_are_skipped_and_counted(tmp_path: Path) -> None:
    scene, detect = write_scene(tmp_path / "scene.tif", rows_without_data=140), FindsMarks()
    path = tmp_path / "map.gpkg"
    search(scene, path, make_run(detect, tmp_path))
    counts = read_metadata(path)["counts"]
    assert counts["windows"] == detect.calls == 8 and counts["windows_without_data"] == 4


def test_twice_the_resolution_gives_the_same_places(tmp_path: Path) -> None:
    """A detector that sees larger pixels must not move or resize anything but by its pixels."""

    def find_bright(images: list[np.ndarray]) -> list[tuple[torch.Tensor, ...]]:
        results = []
        for image in images:
            bright = (image[:, :, 0] > 160).astype(np.uint8)
            count, _, _, centers = cv2.connectedComponentsWithStats(bright)
            boxes = [[x + 0.5, y + 0.5, 40, 16, 30] for x, y in centers[1:count]]
            number = len(boxes)
            results.append(
                (
                    torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5),
                    torch.full((number,), 0.9, dtype=torch.float64),
                    torch.zeros(number, dtype=torch.int64),
                )
            )
        return results

    scene, path = write_scene(tmp_path / "scene.tif"), tmp_path / "map.gpkg"
    search(scene, path, make_run(find_bright, tmp_path, "--gsd", "1.0"))
    assert read_metadata(path)["pixels"]["height"] in range(595, 606)
    shapes, columns, _ = read_vector_file(path)
    centers = np.array([shape.centroid.coords[0] for shape in shapes])
    expected = np.array([TRANSFORM @ (x + 0.5, y + 0.5) for x, y in MARKS])
    np.testing.assert_allclose(
        centers[np.lexsort(centers.T)], expected[np.lexsort(expected.T)], atol=1.0
    )
    np.testing.assert_allclose(columns["length_m"], 40, rtol=3e-3)


def test_an_area_limits_the_work_and_the_objects(tmp_path: Path) -> None:
    corners = [TRANSFORM @ point for point in [(0, 0), (180, 0), (180, 170), (0, 170), (0, 0)]]
    ring = [[x, y] for x, y in corners]
    area = {"type": "Polygon", "coordinates": [ring]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": area}
    (tmp_path / "area.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    scene, path, detect = write_scene(tmp_path / "scene.tif"), tmp_path / "map.gpkg", FindsMarks()
    search(scene, path, make_run(detect, tmp_path, "--area", str(tmp_path / "area.geojson")))
    assert len(read_vector_file(path)[0]) == 2 and detect.calls == 4
    assert read_metadata(path)["counts"]["detections_outside_area"] >= 1


def test_a_broken_scene_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "c"):
        write_scene(tmp_path / f"{name}.tif")
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:3000])
    scenes = find_scenes([str(tmp_path)])
    assert [scene.name for scene in scenes] == ["a", "b", "c"]
    maps = [tmp_path / f"{scene.name}.gpkg" for scene in scenes]
    run = make_run(FindsMarks(), tmp_path)
    code = run_all(search_in_turn(scenes, maps, run), len(scenes))
    assert code == 1 and [path.is_file() for path in maps] == [True, False, True]
    assert "1 of 3 scenes failed" in capsys.readouterr().err


def test_sixteen_bits_without_a_rule_are_refused_with_the_measured_range(tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint16",
        crs="EPSG:32633", transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(np.linspace(0, 1800, 4096).astype(np.uint16).reshape(64, 64), 1)
    with pytest.raises(ValueError, match=r"scene\.tif.*(17|18)\d\d"):
        search(scene, tmp_path / "map.gpkg", make_run(FindsMarks(), tmp_path))
    run = make_run(FindsMarks(), tmp_path, "--percentile", "2", "98")
    search(scene, tmp_path / "map.gpkg", run)
    assert read_metadata(tmp_path / "map.gpkg")["radiometry"]["scaling"] == "range"


def test_what_is_not_finite_is_counted(tmp_path: Path) -> None:
    def broken(images: list[np.ndarray]) -> list[tuple[torch.Tensor, ...]]:
        nothing = torch.full((1, 5), torch.nan), torch.full((1,), torch.nan)
        return [(*nothing, torch.zeros(1, dtype=torch.int64)) for _ in images]

    scene, path = write_scene(tmp_path / "scene.tif"), tmp_path / "map.gpkg"
    search(scene, path, make_run(broken, tmp_path))
    assert read_metadata(path)["counts"]["detections_not_finite"] == 12


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--range", "0", "1", "--percentile", "2", "98"], "exclude each other"),
        (["--range", "5", "1"], "low must be below high"),
        (["--gamma", "0"], "gamma must be positive"),
    ],
)
def test_impossible_rules_are_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_run(FindsMarks(), tmp_path, *flags)


def test_the_command_line_has_the_last_word_on_the_radiometry() -> None:
    args = argparse.Namespace(range=None, percentile=[1, 99], bands=["4", "red"], gamma=None)
    args.nodata = None
    configured = {"_target_": "x", "scaling": "range", "low": 0, "high": 10, "gamma": 2.0}
    rule = predict_scene.read_radiometry(args, configured)
    assert rule.scaling == "percentile" and rule.bands == (4, "red") and rule.gamma == 2.0


def write_labels(path: Path, boxes: list[tuple[float, ...]], name: str = "ship") -> Path:
    """Boxes of the scene's pixels as a GeoJSON file in longitude and latitude."""
    from pyproj import Transformer

    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    features = []
    for corners in boxes_to_corners(torch.tensor(boxes, dtype=torch.float64)).tolist():
        ring = [to_degrees.transform(*(TRANSFORM @ tuple(corner))) for corner in corners]
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "properties": {"class": name}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def score(tmp_path: Path, labels: Path, *flags: str) -> list[str]:
    """Rows of the table for a scene whose marks are all found."""
    scene, path = write_scene(tmp_path / "scene.tif"), tmp_path / "map.gpkg"
    run = make_run(FindsMarks(), tmp_path, *flags)
    search(scene, path, run)
    files = [SceneFiles("scene", (str(scene),))]
    return predict_scene.score_maps(files, [path], [labels], run).splitlines()


def test_maps_are_scored_against_labels_with_coordinates(tmp_path: Path) -> None:
    marked = [(x + 0.5, y + 0.5, 20, 8, 30) for x, y in MARKS]
    rows = score(tmp_path, write_labels(tmp_path / "all.geojson", marked))
    assert rows[1].split() == ["scene", "5", "5", "100.0", "100.0", "100.0", "to", "100.0"]

    # One more that was not found, one at another angle that does not overlap by half.
    other = [*marked[:4], (*marked[4][:4], 110), (100.0, 250.0, 20, 8, 0)]
    rows = score(tmp_path, write_labels(tmp_path / "other.geojson", other))
    assert rows[1].split()[:4] == ["scene", "6", "5", "66.7"]


def test_labels_of_other_classes_and_outside_the_area_do_not_count(tmp_path: Path) -> None:
    marked = [(x + 0.5, y + 0.5, 20, 8, 30) for x, y in MARKS]
    rows = score(tmp_path, write_labels(tmp_path / "boats.geojson", marked, "boat"))
    assert rows[1].split()[:2] == ["scene", "0"] and "5 labels of other classes: boat" in rows[1]

    west = write_labels(tmp_path / "west.geojson", [(75.0, 75.0, 150, 150, 0)])
    labels = write_labels(tmp_path / "l.geojson", marked)
    rows = score(tmp_path, labels, "--area", str(west), "--overwrite")
    assert rows[1].split()[:5] == ["scene", "2", "2", "100.0", "100.0"]
    assert "3 labels outside the area" in rows[1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["absent.geojson"], "no file of labels absent"), (["a.json", "b.json"], "2 files of labels")],
)
def test_labels_are_looked_for_before_any_work(tmp_path: Path, labels: list[str], message: str):
    run = make_run(FindsMarks(), tmp_path, "--labels", *labels)
    with pytest.raises((OSError, ValueError), match=message):
        predict_scene.prepare_labels(run.args, [SceneFiles("scene", ("scene.tif",))], run)


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("{", "class", r"labels\.geojson"),
        (None, "kind", r"labels\.geojson.*'kind'"),
    ],
)
def test_labels_that_cannot_be_read_are_named_before_any_work(
    tmp_path: Path, content: str | None, column: str, message: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    labels = write_labels(tmp_path / "labels.geojson", [(75.0, 75.0, 40, 20, 0)])
    if content is not None:
        labels.write_text(content)
    run = make_run(FindsMarks(), tmp_path, "--labels", str(labels), "--class-column", column)
    with pytest.raises((OSError, ValueError), match=message):
        predict_scene.prepare_labels(run.args, [SceneFiles("scene", (str(scene),))], run)


def test_workers_that_die_write_the_bytes_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in "ac":
        write_scene(folder / f"{name}.tif")
    (folder / "b.tif").write_bytes((folder / "a.tif").read_bytes()[:3000])
    scenes = find_scenes([str(folder)])

    run, maps, told = make_run(FindsMarks(), tmp_path), {}, {}
    for name in ("one", "many", "again"):
        (tmp_path / name).mkdir(exist_ok=True)
        maps[name] = [tmp_path / name / f"{scene.name}.gpkg" for scene in scenes]
    told["one"] = run_all(search_in_turn(scenes, maps["one"], run), 3)
    pool = FakePool(SceneWorker(run), ["search"], deaths=2)
    told["many"] = run_all(search_by_workers(scenes, maps["many"], pool, 3), 3)
    assert pool.deaths == 0 and told == {"one": 1, "many": 1}
    assert capsys.readouterr().err.count("1 of 3 scenes failed:\n  b: ") == 2

    # A call that kills every worker fails its scene alone; a run without workers continues it.
    pool = FakePool(SceneWorker(run), ["search"], deaths=3)
    outcomes = list(search_by_workers(scenes, maps["again"], pool, 1))
    assert [outcome.name for outcome in outcomes if outcome.failed] == ["a", "b"]
    assert run_all(search_in_turn(scenes, maps["again"], run), 3) == 1
    for index in (0, 2):
        assert len({paths[index].read_bytes() for paths in maps.values()}) == 1


@pytest.mark.parametrize(("num_workers", "started"), [(1, 1 + 3), (2, 2 + 6)])
def test_a_scene_that_fails_is_named_once_and_searched_no_further(
    tmp_path: Path, num_workers: int, started: int
) -> None:
    class BusyPool(FakePool):
        """All its workers answer at a time."""

        def wait(self, tickets):
            return tickets

    scenes = find_scenes([str(write_scene(tmp_path / "scene.tif"))])
    pool = BusyPool(SceneWorker(make_run(FindsMarks(), tmp_path)), ["search"], deaths=99)
    outcomes = list(search_by_workers(scenes, [tmp_path / "map.gpkg"], pool, num_workers))
    assert [(one.name, one.failed) for one in outcomes] == [("scene", True)]
    # Three workers die of each part that was begun, and each gets a successor.
    assert pool.started == started


def test_workers_search_no_part_again(tmp_path: Path) -> None:
    scenes, path = find_scenes([str(write_scene(tmp_path / "scene.tif"))]), tmp_path / "map.gpkg"
    run = make_run(FindsMarks(), tmp_path, "--keep-parts")
    assert run_all(search_in_turn(scenes, [path], run), 1) == 0
    path.unlink()
    pool = FakePool(SceneWorker(run), ["search"], deaths=99)
    assert run_all(search_by_workers(scenes, [path], pool, 2), 1) == 0 and path.is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ray-workers", "2"], "need --engine ray"),
        (["--engine", "ray", "--ray-workers", "0"], "at least 1"),
        (["--engine", "ray", "--device", "cuda:1"], "its own GPU"),
    ],
)
def test_options_of_the_engine_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    args = make_run(FindsMarks(), tmp_path, *flags).args
    monkeypatch.setattr(predict_scene, "import_ray", lambda: None)
    with pytest.raises(ValueError, match=message):
        predict_scene.check_engine(args, args.device or "auto", (0, 1))


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rsd2\[fleet\]'"):
        predict_scene.import_ray()


@pytest.mark.parametrize(
    ("crowds", "expected"), [("detect", "4"), ("objects", "5"), ("difficult", "4")]
)
def test_crowds_of_coco_labels_mean_what_the_flag_says(
    tmp_path: Path, crowds: str, expected: str
) -> None:
    marked = torch.tensor([(x + 0.5, y + 0.5, 20, 8, 30) for x, y in MARKS], dtype=torch.float64)
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "segmentation": [corners.flatten().tolist()],
            "iscrowd": int(k == 0),
        }
        for k, corners in enumerate(boxes_to_corners(marked))
    ]
    coco = {
        "images": [{"id": 1, "file_name": "scene.tif", "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ship"}],
    }
    (tmp_path / "scene.json").write_text(json.dumps(coco))
    rows = score(tmp_path, tmp_path / "scene.json", "--crowds", crowds)
    assert rows[1].split()[:3] == ["scene", expected, "5"]
