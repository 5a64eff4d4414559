"""Detection in clips: what the model gets, and windows that are merged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.data.transforms import ColorTransform

from rsd2.inference.clip_detector import ClipDetector
from rsd2.inference.clip_windows import detect_in_clip
from rsd2.inference.sliding_window import WindowParameters

from .spot_videos import Spots, picture


@pytest.fixture
def detector() -> ClipDetector:
    return ClipDetector(Spots(), num_frames=3)


def test_the_model_gets_bgr_frames_of_the_whole_window(detector: ClipDetector) -> None:
    clip = [picture(5), picture(4), picture(3)]
    ((boxes, scores, _),) = detector([clip])
    frames = detector.model.clips[-1]
    assert frames.shape == (3, 3, 60, 90) and frames.dtype == torch.uint8
    assert frames[:, 0, 0, 0].tolist() == [5, 4, 3]
    assert frames[0, :, 32, 27].tolist() == [20, 20, 230]
    assert boxes.tolist() == [[25, 30, 30, 35]] and scores.tolist() == pytest.approx([230 / 255])


def test_augmentations_change_all_frames_alike() -> None:
    detector = ClipDetector(Spots(), [T.Resize((120, 180))], num_frames=2)
    ((boxes, _, _),) = detector([[picture(5), picture(5)]])
    frames = detector.model.clips[-1]
    assert frames.shape == (2, 3, 120, 180) and torch.equal(frames[0], frames[1])
    assert boxes.numpy() == pytest.approx(np.array([[26, 31, 29, 34]]), abs=1.5)


def test_every_frame_is_augmented_once() -> None:
    seen = []

    def note(image: np.ndarray) -> np.ndarray:
        seen.append(int(image[0, 0, 0]))
        return image

    detector = ClipDetector(Spots(), [ColorTransform(note)], num_frames=3)
    detector([[picture(5), picture(4), picture(3)]])
    assert seen == [5, 4, 3]


def test_large_frames_are_tiled(detector: ClipDetector) -> None:
    """Every spot is found once, also in the overlap of windows, as in the frame as a whole."""
    spots = tuple((x, y) for x in (3, 50, 66, 130) for y in (5, 44, 70))
    clip = [picture(0, (100, 160), spots)] * 3
    whole, _ = detect_in_clip(clip, detector, WindowParameters(window=201))
    tiled, counts = detect_in_clip(
        clip, detector, WindowParameters(64, 20, nms_threshold=0.5, batch_size=4)
    )
    assert counts["windows_predicted"] == 8 and len(whole.scores) == 12
    rows = [np.array(sorted(found.boxes.tolist())) for found in (whole, tiled)]
    np.testing.assert_allclose(*rows)


@pytest.mark.parametrize("overlap", [20, 10])
def test_an_object_is_found_once_wherever_windows_end(detector: ClipDetector, overlap: int) -> None:
    """Cut by a border it would be found as its half, too; cut at a corner up to four times."""
    for place in range(30, 75):
        clip = [picture(0, (100, 160), ((place, place),))] * 3
        found, _ = detect_in_clip(clip, detector, WindowParameters(64, overlap, nms_threshold=0.5))
        assert found.boxes.tolist() == [[place, place, place + 5, place + 5]]


class Unlike:
    """Sees the same two objects of 5 px in every window, one pixel further right in each."""

    num_frames = 1

    def __call__(self, clips: list) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        found = []
        for (window,) in clips:
            x0 = int(window[0, 0, 0])  # where it begins, which its grey says
            x = torch.tensor([50.0, 54]) - x0 + x0 // 40
            y = torch.tensor([10.0, 30])
            boxes = torch.stack([x, y, x + 5, y + 5], dim=1)
            found.append((boxes, torch.tensor([0.4, 0.6]), torch.zeros(2, dtype=torch.int64)))
        return found


@pytest.mark.parametrize(
    ("nms_threshold", "scores"), [(0.6, [0.6, 0.4]), (0.7, [0.6, 0.6, 0.4, 0.4])]
)
def test_what_windows_see_alike_is_merged(nms_threshold: float, scores: list) -> None:
    """Boxes of an IoU of 4/6; what stays comes in decreasing score."""
    image = np.broadcast_to(np.arange(104, dtype=np.uint8)[:, None], (64, 104, 3))
    parameters = WindowParameters(64, 24, nms_threshold=nms_threshold)
    found, _ = detect_in_clip([image], Unlike(), parameters)
    assert found.scores.tolist() == pytest.approx(scores)


def test_of_a_single_window_the_best_comes_first() -> None:
    found, _ = detect_in_clip([np.zeros((64, 64, 3), np.uint8)], Unlike(), WindowParameters())
    assert found.scores.tolist() == pytest.approx([0.6, 0.4])
    assert found.boxes[0].tolist() == [54, 30, 59, 35]
