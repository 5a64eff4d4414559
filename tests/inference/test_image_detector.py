"""Windows that a detector of images wants, from what it saw in training."""

from __future__ import annotations

import pytest
import torch
from detectron2.data import transforms as T

from rsd2.data.mappers.views import Views, view_of
from rsd2.inference import image_detector
from rsd2.inference.image_detector import ImageDetector

RESIZED = [T.ResizeShortestEdge(320, 320)]


@pytest.mark.parametrize(
    ("augmentations", "trained", "in_shares", "windows"),
    [
        (RESIZED, None, False, (1024, 200)),
        # Images of 512 pixels, shown at 0.5 to 0.8 of their size: 1024 would become 320, too.
        (RESIZED, Views((512, 512), (0.5, 0.8)), False, (512, 128)),
        (RESIZED, Views((900, 1000), (0.3, 0.4)), False, (1024, 200)),
        # Parts of training in their own size: any window shows objects as large.
        ([], Views((256, 256), (1, 1)), False, (1024, 200)),
        ([], Views((256, 256), (1, 1)), True, (256, 64)),
        ([], Views((1000, 1200), (1, 1)), True, (1024, 200)),
    ],
)
def test_usual_windows_show_objects_as_large_as_in_training(
    augmentations, trained, in_shares, windows
):
    detector = ImageDetector(
        torch.nn.Identity(), augmentations, trained=trained, in_shares=in_shares
    )
    assert detector.usual_windows == windows
    assert detector.note_on_window(windows[0], windows[0]) == ""


def test_each_size_of_windows_is_judged_once(monkeypatch):
    asked = []

    def counted(augmentations, height, width):
        asked.append((height, width))
        return view_of(augmentations, height, width)

    monkeypatch.setattr(image_detector, "view_of", counted)
    trained = Views((256, 256), (1, 1))
    detector = ImageDetector(torch.nn.Identity(), trained=trained, in_shares=True)
    notes = [detector.note_on_window(*size) for size in [(256, 256), (600, 256)] * 2]
    assert asked == [(256, 256), (600, 256)]
    assert notes == [notes[0], notes[1]] * 2 and notes[0] == "" != notes[1]
