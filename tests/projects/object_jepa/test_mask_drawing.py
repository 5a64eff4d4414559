"""Pictures of masks: the right patches are dark, framed and coloured."""

import numpy as np
import pytest

from rsd2.projects.object_jepa import mask_drawing
from rsd2.projects.object_jepa.mask_drawing import draw_masks

GRID, SIDE = (4, 6), 8


@pytest.fixture
def case(rng):
    objects = np.zeros(24, dtype=bool)
    objects[[8, 9]] = True
    return {
        "image_rgb": rng.integers(100, 256, (32, 48, 3)).astype(np.uint8),
        "boxes": np.array([[20.0, 12, 10, 6, 30]]),
        "grid": GRID,
        "object_tokens": objects,
        "keep": np.array([0, 5, 23]),
        "predicted": np.array([8, 9, 3, 18]),
        "errors": np.array([1.0, 2.0, 3.0, 5.0]),
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def views(case, monkeypatch):
    """The four views at their own scale, without the sheet around them."""
    caught = []

    def catch(images, captions, **options):
        caught.extend(zip(images, captions))
        return images[0]

    monkeypatch.setattr(mask_drawing, "make_contact_sheet", catch)
    before = case["image_rgb"].copy()
    draw_masks(**case)
    assert (case["image_rgb"] == before).all()
    return caught


def patches_of(view):
    """(24, pixels, 3) the pixels of each patch, in row-major order."""
    height, width = (length // count for length, count in zip(view.shape, GRID))
    parts = view.reshape(GRID[0], height, GRID[1], width, 3).swapaxes(1, 2)
    return parts.reshape(24, height * width, 3)


def test_dark_patches_are_those_that_are_not_seen(views):
    kept, hidden = patches_of(views[1][0]), patches_of(views[2][0])
    dark = {i for i in range(24) if np.median(kept[i]) < 80}
    assert dark == set(range(24)) - {0, 5, 23}
    assert {i for i in range(24) if np.median(hidden[i]) < 80} == {0, 5, 23}


def test_frames_tell_loss_on_objects_from_loss_elsewhere(views):
    parts = patches_of(views[2][0])

    def framed(color):
        return {i for i in range(24) if (parts[i] == color).all(axis=1).any()}

    assert framed((255, 60, 60)) == {8, 9}
    assert framed((0, 220, 255)) == {3, 18}
    parts = patches_of(views[0][0])
    assert framed((255, 200, 0)) == {8, 9}


def test_brightness_is_the_error(views):
    view, caption = views[3]
    brightness = patches_of(view).mean(axis=(1, 2))
    shown = brightness[[8, 9, 3, 18]]
    assert (np.diff(shown) > 0).all() and shown[-1] > 150 and shown[0] < 20
    assert "1 (dark) to 5 (bright)" in caption


def test_equal_errors_and_no_boxes(case):
    case |= {"errors": np.full(4, 2.0), "boxes": np.zeros((0, 5))}
    picture = draw_masks(**case)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and np.ptp(picture) > 0


def test_a_grid_that_does_not_fit_is_refused(case):
    with pytest.raises(ValueError, match="32 x 48 has no 5 x 6 patches"):
        draw_masks(**{**case, "grid": (5, 6)})
