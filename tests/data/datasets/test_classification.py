"""Readers of labelled images: the layouts, and what is wrong with a file."""

import hashlib
import pickle

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from torchvision.datasets import CIFAR100

from rsd2.data.datasets import (
    ArrayImages,
    load_cifar100,
    load_classification,
    load_image_folder,
    load_imagenet32,
    load_object_crops,
    register_classification,
)


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 4, 3), value, dtype=np.uint8))


def test_folders_are_classes(tmp_path):
    for name in ("zebra/1.JPEG", "ant/2.png", "ant/1.png", "bee/deep/3.jpg"):
        picture(tmp_path / name)
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    found = load_image_folder(tmp_path)
    names = [(x["file_name"].removeprefix(f"{tmp_path}/"), x["label"]) for x in found]
    assert names == [("ant/1.png", 0), ("ant/2.png", 0), ("bee/deep/3.jpg", 1), ("zebra/1.JPEG", 2)]
    assert [x["image_id"] for x in found] == [0, 1, 2, 3]
    chosen = load_image_folder(tmp_path, classes=["zebra", "ant"])
    assert sorted(x["label"] for x in chosen) == [0, 1, 1]


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*gone"):
        load_image_folder(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        load_image_folder(tmp_path)
    (tmp_path / "ant").mkdir()
    with pytest.raises(FileNotFoundError, match="ant"):
        load_image_folder(tmp_path)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Three images in CIFAR-100's layout, their checksums expected."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows = np.arange(3 * 3072, dtype=np.uint64).astype(np.uint8).reshape(3, 3072)
    contents = {
        "train": {"data": rows, "fine_labels": [5, 99, 0]},
        "test": {"data": rows[:1], "fine_labels": [7]},
        "meta": {"fine_label_names": [f"class {i}" for i in range(100)]},
    }
    sums = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return tmp_path, rows


def test_cifar100(cifar):
    root, rows = cifar
    data = load_cifar100(root, train=True)
    assert len(data) == 3 and [data[i]["label"] for i in range(3)] == [5, 99, 0]
    # planes of red, green, blue; rows of 32
    assert data[1]["pixels"].shape == (32, 32, 3)
    assert data[1]["pixels"][2, 3].tolist() == rows[1][[67, 1024 + 67, 2048 + 67]].tolist()
    assert len(load_cifar100(root, train=False)) == 1


def test_changed_or_absent_cifar100_is_refused_and_never_unpickled(cifar):
    root, _ = cifar
    path = root / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python is absent or damaged"):
        load_cifar100(root, train=True)
    with pytest.raises(FileNotFoundError, match="unpack cifar-100-python.tar.gz"):
        load_cifar100(root / "elsewhere", train=True)


def write_imagenet32(folder, rows, labels, name="val_data.npz"):
    np.savez(folder / name, data=rows, labels=labels, mean=np.zeros(3072))


def test_imagenet32(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    write_imagenet32(tmp_path, rows, np.array([1, 1000]))
    data = load_imagenet32(tmp_path, train=False)
    assert [data[i]["label"] for i in range(2)] == [0, 999]
    assert data[0]["pixels"][1, 2].tolist() == rows[0][[34, 1024 + 34, 2048 + 34]].tolist()
    for i in range(1, 11):
        write_imagenet32(tmp_path, rows[:1], np.array([i]), f"train_data_batch_{i}.npz")
    train = load_imagenet32(tmp_path, train=True)
    assert [train[i]["label"] for i in range(10)] == list(range(10))
    (tmp_path / "train_data_batch_4.npz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks train_data_batch_4.npz"):
        load_imagenet32(tmp_path, train=True)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.zeros((2, 3072), np.uint8), [0, 5], "labels 0 to 5, expected 1 to 1000"),
        (np.zeros((2, 3072), np.float32), [1, 5], "type float32"),
        (np.zeros((3, 3072), np.uint8), [1, 5], r"shape \(3, 3072\)"),
        (np.array([["x"]], dtype=object), [1], "is damaged"),
    ],
)
def test_wrong_imagenet32_is_named(tmp_path, rows, labels, message):
    write_imagenet32(tmp_path, rows, np.array(labels))
    with pytest.raises(ValueError, match=f"val_data.npz.*{message}"):
        load_imagenet32(tmp_path, train=False)
    (tmp_path / "val_data.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ValueError, match="val_data.npz is damaged or not a file of ImageNet32"):
        load_imagenet32(tmp_path, train=False)


@pytest.fixture
def scenes():
    """Two images of 100 x 80; one has a rotated, an upright, an ignored, an uncertain object."""
    box = {"bbox": [50.0, 40, 20, 10, 30.0], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 1}
    upright = {"bbox": [2, 4, 6, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    annotations = [box, upright, {**box, "ignore": True}, {**upright, "uncertain": 1}]
    image = {"file_name": "a.png", "height": 80, "width": 100, "image_id": "a"}
    data = [
        {**image, "annotations": annotations},
        {**image, "file_name": "b.png", "annotations": []},
    ]
    DatasetCatalog.register("crop_scenes", data.copy)
    MetadataCatalog.get("crop_scenes").set(thing_classes=["car", "boat"])
    yield "crop_scenes"
    DatasetCatalog.remove("crop_scenes")
    MetadataCatalog.remove("crop_scenes")


def test_crops_lie_around_objects(scenes):
    found = load_object_crops(scenes, size=10, background_per_image=0)
    windows = [(x["window"], x["label"], x["file_name"]) for x in found]
    assert windows == [([45, 35, 55, 45], 1, "a.png"), ([0, 3, 10, 13], 0, "a.png")]


def test_background_has_no_object_and_stays_inside(scenes):
    found = load_object_crops(scenes, size=30, background_per_image=50)
    empty = [x for x in found if x["label"] == 2]
    assert len(empty) > 50
    for x in empty:
        x0, y0, x1, y1 = x["window"]
        assert x0 >= 0 and y0 >= 0 and x1 <= 100 and y1 <= 80 and x1 - x0 == y1 - y0 == 30
        if x["file_name"] == "a.png":
            centers = ((50, 40), (5, 8))
            assert not any(x0 <= cx < x1 and y0 <= cy < y1 for cx, cy in centers)
    again = load_object_crops(scenes, size=30, background_per_image=50)
    assert found == again != load_object_crops(scenes, 30, 50, seed=1)


def test_windows_larger_than_the_image_are_allowed(scenes):
    found = load_object_crops(scenes, size=200, background_per_image=5)
    assert {tuple(x["window"]) for x in found if x["label"] == 2} == {(0, 0, 200, 200)}


def test_bad_crops_are_refused(scenes):
    with pytest.raises(ValueError, match="got 0, 2"):
        load_object_crops(scenes, size=0)


def test_data_without_labels_is_refused(scenes):
    with pytest.raises(ValueError, match="crop_scenes has no labels of whole images"):
        load_classification(scenes)


def test_arrays_must_fit():
    with pytest.raises(ValueError, match="here: 1 labels for images of shape"):
        ArrayImages(np.zeros((2, 4, 4, 3), np.uint8), [0], "here")


def test_registered_names_follow_the_root(tmp_path):
    before = MetadataCatalog.get("imagenet_val").builtin_root
    try:
        register_classification(tmp_path)
        picture(tmp_path / "imagenet" / "val" / "ant" / "1.png")
        (only,) = load_classification("imagenet_val")
        assert only["label"] == 0
        with pytest.raises(FileNotFoundError, match="imagenet32"):
            load_classification("imagenet32_train")
    finally:
        register_classification(before)
    assert MetadataCatalog.get("imagenet_val").builtin_root == before
