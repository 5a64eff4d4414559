"""tools/predict.py: from images to drawings, text files and JSON, through the command line."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances, RotatedBoxes
from PIL import Image
from torch import nn

from rsd2.commands import predict as tool
from rsd2.config import save_config
from rsd2.inference.image_detector import ImageDetector
from rsd2.inference.prediction_files import PredictionWriter, output_names
from rsd2.inference.sliding_window import ImageDetections, WindowParameters, detect_in_windows
from rsd2.io.program import program_name
from rsd2.ops import paired_iou_rotated
from rsd2.structures import boxes_to_corners, canonicalize
from rsd2.testing import shrink, write_tiny_dota

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with a tiny model's config and checkpoint, as a training leaves them."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = LazyConfig.load(str(ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"))
    cfg = shrink(cfg)
    cfg.model.num_classes = 2
    cfg.dataloader.test.dataset.names = "nobody_registered_this"
    save_config(cfg, folder / "config.yaml")
    torch.manual_seed(0)
    state = instantiate(cfg.model).state_dict()
    average = {key: value * 0 for key, value in state.items()}
    checkpoint = {"model": state, "ema": {"model": average, "updates": 1}, "iteration": 9}
    torch.save(checkpoint, folder / "model.pth")
    torch.save({"model": state}, folder / "plain.pth")
    return folder


@pytest.fixture
def images(tmp_path):
    """A small image, one that needs windows, and a broken one, in a folder with something else."""
    folder = tmp_path / "images"
    for name, size in (("small", (50, 64)), ("large", (90, 150))):
        _, written = write_tiny_dota(tmp_path / name, 1, size, seed=1)
        folder.mkdir(exist_ok=True)
        shutil.copy(written / "P0000.png", folder / f"{name}.png")
    whole = (folder / "large.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """Run the tool with a threshold that random weights reach; returns the exit code."""

    def run(*arguments, config=None, weights="plain.pth", output="out"):
        flags = ["--config-file", str(config or trained / "config.yaml")]
        flags += ["--weights", str(trained / weights)] if weights else []
        flags += ["--output", str(tmp_path / output), "--score-threshold", "0"]
        return tool.main([*flags, "--window", "64", "--overlap", "20", *map(str, arguments)])

    return run


def test_folder_with_a_broken_image(run, images, tmp_path, capsys):
    assert run("--input", images, "--classes", "plane", "storage tank") == 1
    captured = capsys.readouterr()
    assert "1 images could not be read" in captured.err
    assert str(images / "broken.png") in captured.err and "download or convert" in captured.err
    assert "1 other files in the folders are not images" in captured.out

    out = tmp_path / "out"
    names = ["detections.json", "large.png", "large.txt", "small.png", "small.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    content = json.loads((out / "detections.json").read_text())
    assert content["complete"] and content["classes"] == ["plane", "storage tank"]
    assert [entry["file"] for entry in content["failed"]] == [str(images / "broken.png")]
    protocol = content["protocol"]
    assert (protocol["window"], protocol["overlap"], protocol["nms_threshold"]) == (64, 20, 0.1)
    assert protocol["score_threshold"] == 0 and protocol["weights"].endswith("plain.pth")
    assert {"rsd2", "torch", "detectron2"} <= protocol["versions"].keys()
    large, small = content["images"]
    assert (large["width"], large["height"], large["windows"]) == (150, 90, 6)
    assert (small["width"], small["height"], small["windows"]) == (64, 50, 1)
    total = sum(len(image["detections"]) for image in content["images"])
    assert f"{total} detections in 2 of 3 images" in captured.out
    assert "seconds per image" in captured.out

    for image in content["images"]:
        detections = image["detections"]
        assert detections
        scores = [found["score"] for found in detections]
        assert scores == sorted(scores, reverse=True)
        boxes = torch.tensor([found["box"] for found in detections], dtype=torch.float64)
        polygons = torch.tensor([found["polygon"] for found in detections])
        expected = boxes_to_corners(boxes).reshape(-1, 8).float()
        torch.testing.assert_close(polygons, expected, atol=0.02, rtol=1e-4)
        lines = (out / f"{image['output']}.txt").read_text().splitlines()
        assert len(lines) == len(detections)
        for line, found in zip(lines, detections):
            *corners, label, score = line.split(" ")
            np.testing.assert_allclose([float(x) for x in corners], found["polygon"], atol=0.006)
            assert label == found["class"].replace(" ", "_") and float(score) == found["score"]
        drawn = cv2.imread(str(out / f"{image['output']}.png"))
        original = cv2.imread(image["file"])
        assert drawn.shape == original.shape and not np.array_equal(drawn, original)


def test_detections_become_pre_labels_once(run, images, tmp_path, capsys):
    arguments = ["--input", images / "small.png", "--classes", "plane", "storage tank"]
    assert run(*arguments, "--labels-format", "cvat") == 0
    assert "pre-labels for CVAT XML" in capsys.readouterr().out
    text = (tmp_path / "out" / "pre_labels.xml").read_text("utf-8")
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert text.count("<box ") == len(content["images"][0]["detections"]) > 0
    assert run(*arguments, "--labels-format", "cvat") == 2
    assert "may hold corrected labels" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["all", "one head"])
def test_weights_that_are_not_finite_are_no_empty_result(
    run, trained, images, tmp_path, capsys, share
):
    checkpoint = torch.load(trained / "plain.pth", weights_only=True)
    for key, value in checkpoint["model"].items():
        if value.is_floating_point() and (share == "all" or "box_heads" in key):
            value.fill_(float("nan"))
    torch.save(checkpoint, trained / "nan.pth")
    assert run("--input", images / "small.png", weights="nan.pth") == 1
    error = capsys.readouterr().err
    assert "nan.pth holds NaN or infinite numbers in" in error
    assert "are these the right weights?" in error
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert content["complete"] and not content["images"][0]["detections"]


def test_detections_that_are_not_finite_are_counted_and_fail(run, images, monkeypatch, capsys):
    original = ImageDetector.__call__

    def diverged(self, batch):
        boxes, scores, classes = original(self, batch)[0]
        return [(boxes, scores.clone().index_fill(0, torch.tensor([0, 1]), torch.nan), classes)]

    monkeypatch.setattr(ImageDetector, "__call__", diverged)
    assert run("--input", images / "small.png") == 1
    captured = capsys.readouterr()
    assert "2 detections were not finite and are left out: are these the right" in captured.err


def test_same_again_with_other_batches_and_without_broken_images(run, images, tmp_path, capsys):
    (images / "broken.png").unlink()
    contents = []
    for output, options in (("a", ()), ("b", ("--batch-size", "4", "--max-drawing-size", "50"))):
        assert run("--input", f"{images}/*.png", *options, output=output) == 0
        contents.append(json.loads((tmp_path / output / "detections.json").read_text()))
    assert "nobody_registered_this is not registered; writing class indices" in (
        capsys.readouterr().out
    )
    first, second = ([x["detections"] for x in content["images"]] for content in contents)
    for one, other in zip(first, second):
        assert len(one) == len(other) and {found["class"] for found in one} <= {"0", "1"}
        boxes = [torch.tensor([found["box"] for found in x]) for x in (one, other)]
        torch.testing.assert_close(*boxes, atol=0.02, rtol=1e-3)
    assert cv2.imread(str(tmp_path / "b" / "large.png")).shape == (30, 50, 3)


def test_overrides_and_averaged_weights(run, trained, images, tmp_path, capsys):
    small = images / "small.png"
    checkpoint = f"train.init_checkpoint={trained / 'model.pth'}"
    # Overrides right behind --input are no images.
    assert run("--input", small, checkpoint, weights=None) == 0
    assert "also has averaged weights; --ema uses them" in capsys.readouterr().out
    raw = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert raw["protocol"]["iteration"] == 10 and not raw["protocol"]["ema"]
    assert run("--input", small, "--ema", "--window", "99", checkpoint, weights=None) == 0
    averaged = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert averaged["protocol"]["ema"]
    assert averaged["images"][0]["detections"] != raw["images"][0]["detections"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "missing.png"), "no image at missing.png; give an image, a folder"),
        (("--window", "64", "--overlap", "64"), "overlap must be in"),
        (("--score-threshold", "30"), r"score_threshold must be in [0, 1], got 30"),
        (("--classes", "plane"), "--classes has 1 names, the model 2 classes"),
        (("--weights", "missing.pth"), "no checkpoint missing.pth"),
        (("--ema",), "has no averaged weights"),
        (("--device", "tpu9"), "is no device"),
        (("model.num_classes=5",), "(2, 32) in the file, (5, 32) in the model"),
        (("model.num_clases=5",), "did you mean model.num_classes"),
    ],
)
def test_one_line_says_what_is_wrong(run, images, tmp_path, capsys, arguments, message):
    assert run("--input", images / "small.png", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{program_name()}: error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_used(run, images, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run("--input", images / "small.png") == 2
    assert f"cannot write to --output {tmp_path / 'out'}" in capsys.readouterr().err
    before = (images / "small.png").read_bytes()
    assert run("--input", images / "small.png", output="images") == 2
    assert "the drawings would replace" in capsys.readouterr().err
    assert (images / "small.png").read_bytes() == before


def test_missing_weights_and_empty_folder(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("--input", tmp_path / "empty") == 2
    assert "no image at" in capsys.readouterr().err
    write_tiny_dota(tmp_path, 1)
    assert run("--input", tmp_path / "images", weights=None) == 2
    assert "give --weights FILE" in capsys.readouterr().err


def test_interruption_keeps_what_is_done(run, images, tmp_path, monkeypatch, capsys):
    read = tool.read_image

    def interrupted(path, **options):
        if Path(path).name == "small.png":
            raise KeyboardInterrupt
        return read(path, **options)

    monkeypatch.setattr(tool, "read_image", interrupted)
    assert run("--input", images / "large.png", images / "small.png") == 130
    assert "interrupted" in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert not content["complete"] and len(content["images"]) == 1


@pytest.mark.parametrize("rule, size", [("ignore", (64, 50)), ("obey", (50, 64))])
def test_exif_orientation_is_ignored_or_obeyed(run, images, tmp_path, rule, size):
    picture = Image.open(images / "small.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(images / "turned.jpg", exif=exif)
    assert run("--input", images / "turned.jpg", "--exif-orientation", rule) == 0
    (image,) = json.loads((tmp_path / "out" / "detections.json").read_text())["images"]
    assert (image["width"], image["height"]) == size


@pytest.mark.parametrize("rule", ["drop", "join", "keep"])
def test_the_rule_for_seams_is_recorded(run, images, tmp_path, rule):
    assert run("--input", images / "large.png", "--seams", rule) == 0
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert content["protocol"]["seams"] == rule


def test_class_names_come_from_the_test_set(trained):
    cfg = LazyConfig.load(str(trained / "config.yaml"))
    cfg.dataloader.test.dataset.names = "dota_v1.0_val_800_200"
    assert tool.class_names(None, cfg) == []  # 15 names do not fit 2 classes
    cfg.model.num_classes = 15
    assert tool.class_names(None, cfg)[:2] == ["plane", "baseball-diamond"]
    assert tool.class_names([str(i) for i in range(15)], cfg)[14] == "14"


def test_images_of_equal_names_get_results_of_their_own():
    paths = [Path(x) for x in ("a/P1.png", "b/P1.png", "c/p1.tif", "P1_2.png", "P2.png")]
    assert output_names(paths) == ["P1", "P1_3", "p1_4", "P1_2", "P2"]


def test_equal_names_on_disk(run, images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(images / "large.png", other / "small.png")
    assert run("--input", images / "small.png", other / "small.png") == 0
    assert cv2.imread(str(tmp_path / "out" / "small.png")).shape == (50, 64, 3)
    assert cv2.imread(str(tmp_path / "out" / "small_2.png")).shape == (90, 150, 3)


class BlobDetector(nn.Module):
    """Finds rectangles that are bright in one channel and shown whole: right if the pixels are."""

    def __init__(self, channel, horizontal=False):
        super().__init__()
        self.channel, self.horizontal = channel, horizontal

    def forward(self, batch):
        return [{"instances": self.find(**x)} for x in batch]

    def find(self, image, height, width):
        mask = (image[self.channel] > 157).numpy().astype(np.uint8)
        boxes = []
        for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            points = contour.reshape(-1, 2) + 0.5
            low, high = points.min(axis=0), points.max(axis=0)
            if (low < 1).any() or (high > np.array(mask.shape[::-1]) - 1).any():
                continue
            axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
            local = points @ axes.T
            low, high = local.min(axis=0), local.max(axis=0)
            angle = -np.degrees(np.arctan2(axes[0, 1], axes[0, 0]))
            boxes.append([*((low + high) / 2 @ axes), *(high - low + 1), angle])
        boxes = RotatedBoxes(torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 5)))
        boxes.scale(width / mask.shape[1], height / mask.shape[0])
        if self.horizontal:
            corners = boxes_to_corners(boxes.tensor)
            boxes = Boxes(torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1))
        found = Instances((height, width))
        found.pred_boxes, found.scores = boxes, torch.ones(len(boxes))
        found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
        return found


def rectangles(height, width):
    """An image of red rectangles on grey, and their boxes."""
    boxes, image = [], np.full((8 * height, 8 * width, 3), 60, dtype=np.uint8)
    for i, y in enumerate(range(30, height - 20, 45)):
        for j, x in enumerate(range(30, width - 20, 45)):
            box = torch.tensor([x, y, 28, 12, (37 * i + 53 * j) % 180 - 90], dtype=torch.float64)
            corners = np.round(8 * boxes_to_corners(box).numpy()).astype(np.int32)
            cv2.fillPoly(image, [corners], (255, 60, 60))
            boxes.append(box)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image, canonicalize(torch.stack(boxes))


@pytest.mark.parametrize(("window", "overlap"), [(1000, 0), (128, 48), (100, 60)])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_objects_are_found_where_they_are(window, overlap, image_format):
    image, boxes = rectangles(200, 280)
    resize = T.ResizeShortestEdge(3 * min(window, 200), 3 * min(window, 280))
    model = BlobDetector(0 if image_format == "RGB" else 2)
    detector = ImageDetector(model, [resize], image_format)
    found = detect_in_windows(image, detector, WindowParameters(window, overlap, batch_size=2))
    assert len(found.boxes) == len(boxes)
    results = torch.from_numpy(found.boxes)
    nearest = torch.cdist(boxes[:, :2], results[:, :2]).argmin(dim=1)
    assert paired_iou_rotated(boxes, results[nearest]).min() > 0.8


def test_upright_boxes_become_rotated_ones():
    image, boxes = rectangles(100, 100)
    detector = ImageDetector(BlobDetector(0, horizontal=True))
    found, _, _ = detector([image])[0]
    assert found.shape == (len(boxes), 5) and set(found[:, 4].tolist()) <= {0.0, -90.0}
    with pytest.raises(ValueError, match="image_format"):
        ImageDetector(BlobDetector(0), image_format="GRAY")


def test_nothing_found_is_written_too(tmp_path):
    none = np.zeros(0)
    found = ImageDetections(np.zeros((0, 5)), none, none.astype(np.int64), 1, 0, 0, 0)
    image = np.full((30, 40, 3), 7, dtype=np.uint8)
    with PredictionWriter(tmp_path / "new" / "folder", ["plane"]) as out:
        out.finish({}, [])
        assert json.loads((out.folder / "detections.json").read_text())["images"] == []
        out.add("a.png", "a", image, found, 0.1)
        out.add("b.png", "b", image, found, 0.1)
        content = json.loads(out.finish({"window": 3}, [("c.png", "broken")]).read_text())
    assert [x["file"] for x in content["images"]] == ["a.png", "b.png"]
    assert content["failed"] == [{"file": "c.png", "reason": "broken"}]
    assert (tmp_path / "new" / "folder" / "b.txt").read_text() == ""
    assert np.array_equal(cv2.imread(str(out.folder / "a.png")), image)


def test_class_without_a_name_is_an_error(tmp_path):
    one = np.array([[5.0, 5, 4, 2, 0]])
    found = ImageDetections(one, np.ones(1), np.array([3]), 1, 0, 0, 0)
    with (
        PredictionWriter(tmp_path, ["plane"]) as out,
        pytest.raises(ValueError, match="class 3, but there are 1 class names"),
    ):
        out.add("a.png", "a", np.zeros((9, 9, 3), dtype=np.uint8), found, 0.1)


def test_a_config_of_clips_reads_videos(tmp_path, capsys):
    """A folder of frames with a gap: rows, COCO results and a drawn video, and exit code 1."""
    path = ROOT / "projects" / "MICML" / "configs" / "dsfnet_dynamic_small_synthetic_video.py"
    cfg = LazyConfig.load(str(path))
    cfg.model.top_k = 5
    save_config(cfg, tmp_path / "config.yaml")
    torch.manual_seed(0)
    torch.save({"model": instantiate(cfg.model).state_dict()}, tmp_path / "model.pth")
    frames = tmp_path / "video" / "img1"
    frames.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in (1, 2, 4):
        picture = random.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(frames / f"{number:06d}.jpg"), picture)
    flags = ["--config-file", str(tmp_path / "config.yaml"), "--score-threshold", "0"]
    flags += ["--weights", str(tmp_path / "model.pth"), "--output", str(tmp_path / "out")]
    assert tool.main([*flags, "--input", str(frames)]) == 1
    captured = capsys.readouterr()
    assert "detections in 3 frames of 1 videos" in captured.out
    assert "frame 3: folder" in captured.err
    out = tmp_path / "out"
    names = ["video.json", "video.mp4", "video.txt", "videos.json"]
    assert sorted(p.name for p in out.iterdir()) == names
    entries = json.loads((out / "video.json").read_text())
    assert len(entries) == len((out / "video.txt").read_text().splitlines())
    assert {entry["image_id"] for entry in entries} <= {1, 2, 4}
    protocol = json.loads((out / "videos.json").read_text())["protocol"]
    assert protocol["nms_threshold"] == 0.5 and protocol["weights"].endswith("model.pth")
    assert tool.main([*flags, "--input", str(tmp_path / "none.mp4")]) == 2
    assert "there is no video" in capsys.readouterr().err
