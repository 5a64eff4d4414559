"""Clips: one transform for all frames and the boxes; broken frames have a defined fate."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform, HFlipTransform
from PIL import Image

from rsd2.data.mappers.clip_mapper import ClipDatasetMapper
from rsd2.data.mappers.photometric import PhotometricTransform, RandomPhotometricDistortion
from rsd2.data.samplers import build_train_loader

SIZE = (24, 40)


def picture(frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) RGB, different for each frame and asymmetric."""
    return np.random.default_rng(frame).integers(0, 256, (*size, 3), dtype=np.uint8)


def annotation(*box: float, **more: object) -> dict:
    return {"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, **more}


@pytest.fixture
def record(tmp_path: Path) -> dict:
    names = [str(tmp_path / f"{frame:06d}.png") for frame in range(1, 6)]
    for frame, name in enumerate(names, start=1):
        Image.fromarray(picture(frame)).save(name)
    return {
        "file_name": names[4],
        "frame_file_names": names[::-1],
        "image_id": "a/5",
        "video_id": "a",
        "frame_id": 5,
        "height": SIZE[0],
        "width": SIZE[1],
        "annotations": [annotation(4, 6, 5, 7, track_id=3), annotation(30, 10, 6, 4)],
    }


def frames_of(*numbers: int) -> torch.Tensor:
    """(T, 3, H, W) BGR of pictures as they are."""
    stack = np.stack([picture(number)[:, :, ::-1].transpose(2, 0, 1) for number in numbers])
    return torch.from_numpy(stack.copy())


def test_key_frame_first_in_bgr_and_the_rest_of_the_dict_stays(record: dict) -> None:
    before = copy.deepcopy(record)
    result = ClipDatasetMapper(True)(record)
    assert record == before
    assert result["frames"].dtype == torch.uint8
    assert torch.equal(result["frames"], frames_of(5, 4, 3, 2, 1))
    assert result["instances"].gt_boxes.tensor.tolist() == [[4, 6, 9, 13], [30, 10, 36, 14]]
    assert result["instances"].gt_classes.tolist() == [0, 0]
    assert result["instances"].image_size == SIZE
    assert "annotations" not in result and "normalized" not in result
    for key in ("image_id", "video_id", "frame_id", "height", "width"):
        assert result[key] == record[key]
    assert "instances" not in ClipDatasetMapper(False)(record)


def test_all_frames_move_as_the_boxes_do(record: dict) -> None:
    transforms = [HFlipTransform(SIZE[1]), CropTransform(2, 1, 36, 20, SIZE[1], SIZE[0])]
    result = ClipDatasetMapper(True, augmentations=transforms)(record)
    assert torch.equal(result["frames"], frames_of(5, 4, 3, 2, 1).flip(3)[:, :, 1:21, 2:38])
    assert result["instances"].gt_boxes.tensor.tolist() == [[29, 5, 34, 12], [2, 9, 8, 13]]
    assert result["height"] == SIZE[0]


def test_random_distortion_is_one_draw_for_all_frames(record: dict) -> None:
    names = record["frame_file_names"]
    record["frame_file_names"] = [names[0]] * 5
    mapper = ClipDatasetMapper(
        True, augmentations=[T.RandomFlip(prob=0.5), RandomPhotometricDistortion()]
    )
    np.random.seed(3)
    seen = []
    for _ in range(10):
        frames = mapper(record)["frames"]
        assert frames.dtype == torch.float32 and frames.min() >= 0 and frames.max() <= 255
        assert all(torch.equal(frame, frames[0]) for frame in frames[1:])
        seen.append(frames[0])
    assert len({float(frame.sum()) for frame in seen}) > 5


def test_what_mixes_frames_is_refused(record: dict) -> None:
    mapper = ClipDatasetMapper(True, augmentations=[T.RandomSaturation(0.5, 0.6)])
    with pytest.raises(ValueError, match="RandomSaturation"):
        mapper(record)
    brightness = ClipDatasetMapper(True, augmentations=[T.RandomBrightness(0.5, 0.5)])
    assert torch.equal(brightness(record)["frames"], (frames_of(5, 4, 3, 2, 1) * 0.5).byte())


def test_official_order_normalises_first_and_leaves_empty_frames_alone(record: dict) -> None:
    transform = PhotometricTransform(brightness=2.0, contrast=1.5, value_range=None)
    mapper = ClipDatasetMapper(True, augmentations=[transform], normalize_first=True)
    plain = (frames_of(5, 4, 3, 2, 1).float() - 127.4) / 21.05
    result = mapper(record)
    assert result["normalized"] is True
    assert torch.allclose(result["frames"], (plain + 2) * 1.5, atol=1e-4)
    record["annotations"] = []
    assert torch.allclose(mapper(record)["frames"], plain, atol=1e-5)


def test_official_order_allows_no_change_of_size(record: dict) -> None:
    """Frames without object would keep theirs, and be trained on at another scale."""
    resize = {"augmentations": [T.Resize((48, 80))], "normalize_first": True}
    with pytest.raises(ValueError, match="normalize_first=false"):
        ClipDatasetMapper(True, **resize)(record)
    assert ClipDatasetMapper(False, **resize)(record)["frames"].shape == (5, 3, 48, 80)


@pytest.mark.parametrize("num_frames", [1, 3, 5])
def test_shorter_windows_read_fewer_frames(record: dict, num_frames: int) -> None:
    Path(record["frame_file_names"][4]).unlink()
    mapper = ClipDatasetMapper(False, num_frames=num_frames)
    frames = mapper(record)["frames"]
    assert torch.equal(frames, frames_of(5, 4, 3, 2, 2)[:num_frames])
    assert bool(mapper.broken) == (num_frames == 5)


def test_video_of_one_frame_repeats_it(record: dict) -> None:
    del record["frame_file_names"]
    assert torch.equal(ClipDatasetMapper(False, num_frames=3)(record)["frames"], frames_of(5, 5, 5))


@pytest.mark.parametrize("fault", ["absent", "corrupt", "other size"])
def test_next_later_frame_stands_for_a_broken_one(
    record: dict, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(record["frame_file_names"][2])
    if fault == "absent":
        path.unlink()
    elif fault == "corrupt":
        path.write_bytes(path.read_bytes()[:200])
    else:
        Image.fromarray(picture(3, (24, 41))).save(path)
    mapper = ClipDatasetMapper(True)
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert torch.equal(mapper(record)["frames"], frames_of(5, 4, 4, 2, 1))
    assert list(mapper.broken) == [str(path)]
    assert caplog.text.count(str(path)) >= 1 and len(caplog.records) == 1  # said once
    with pytest.raises((FileNotFoundError, ValueError), match="000003"):
        ClipDatasetMapper(True, broken_frame="error")(record)


def test_broken_key_frame_is_skipped_in_training_and_stood_for_at_test(record: dict) -> None:
    path = Path(record["file_name"])
    path.write_bytes(b"no picture")
    assert ClipDatasetMapper(True)(record) is None
    frames = ClipDatasetMapper(False)(record)["frames"]
    assert torch.equal(frames, frames_of(4, 4, 3, 2, 1))
    for name in record["frame_file_names"]:
        Path(name).unlink()
    with pytest.raises(ValueError, match="No frame of the window of .*000005"):
        ClipDatasetMapper(False)(record)


def test_loader_replaces_samples_without_key_frame(record: dict) -> None:
    broken = copy.deepcopy(record)
    broken["file_name"] = broken["frame_file_names"][0] = record["file_name"] + ".absent"
    loader = build_train_loader(
        [record, broken], mapper=ClipDatasetMapper(True), total_batch_size=2, seed=0
    )
    batches = iter(loader)
    for _ in range(3):
        assert [sample["file_name"] for sample in next(batches)] == [record["file_name"]] * 2


def test_boxes_are_cut_at_the_border_and_those_without_area_left_out(record: dict) -> None:
    record["annotations"] = [
        annotation(-3, 2, 5, 4),
        annotation(50, 50, 3, 3),
        annotation(38.5, 3, 6, 6),
        annotation(1, 1, 4, 4, iscrowd=1),
        annotation(1, 1, 4, 4, ignore=True),
    ]
    boxes = ClipDatasetMapper(True)(record)["instances"].gt_boxes.tensor.tolist()
    assert boxes == [[0, 2, 2, 6], [38.5, 3, 40, 9]]
    larger = ClipDatasetMapper(True, min_side=1.8)(record)["instances"].gt_boxes.tensor
    assert larger.tolist() == [[0, 2, 2, 6]]


@pytest.mark.parametrize("number", [0, 500])
def test_any_number_of_objects(record: dict, number: int) -> None:
    record["annotations"] = [annotation(k % 30, k % 17, 4, 5) for k in range(number)]
    instances = ClipDatasetMapper(True, augmentations=[T.RandomFlip(prob=0.5)])(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (number, 4) and len(instances.gt_classes) == number


def test_neighbouring_windows_decode_each_frame_once(
    record: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsd2.data.mappers import clip_mapper

    read, names = [], record["frame_file_names"]
    original = clip_mapper.read_image

    def count(path: str, image_format: str) -> np.ndarray:
        read.append(path)
        return original(path, image_format)

    monkeypatch.setattr(clip_mapper, "read_image", count)
    mapper = ClipDatasetMapper(False, num_frames=3)
    for key in (2, 1, 0):
        window = {**record, "file_name": names[key], "frame_file_names": names[key : key + 3]}
        mapper(window)
    assert sorted(read) == sorted(names)
    uncached = ClipDatasetMapper(False, num_frames=3, cached_frames=0)
    read.clear()
    uncached(record)
    uncached(record)
    assert len(read) == 6


@pytest.mark.parametrize(
    "options",
    [{"num_frames": 0}, {"cached_frames": -1}, {"pixel_std": 0.0}, {"broken_frame": "skip"}],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        ClipDatasetMapper(True, **options)
