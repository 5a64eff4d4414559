"""Drawings show what they claim, at the right place, and leave their input alone."""

import numpy as np
import pytest
import torch

from rsd2.data.drawing.boxes import (
    class_color,
    draw_dataset_dict,
    draw_rotated_boxes,
    make_contact_sheet,
)

GREY = 90


@pytest.fixture
def image():
    return np.full((100, 120, 3), GREY, np.uint8)


def _changed(before, after):
    rows, columns = np.nonzero((before != after).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_outline_lies_on_the_box_and_the_input_is_not_changed(image):
    drawn = draw_rotated_boxes(image, [[60.0, 50.0, 40.0, 20.0, 90.0]], thickness=1)
    assert (image == GREY).all() and drawn.shape == image.shape
    x0, y0, x1, y1 = _changed(image, drawn)
    assert abs(x0 - 49.5) <= 1.5 and abs(x1 - 69.5) <= 1.5
    assert abs(y0 - 29.5) <= 1.5 and abs(y1 - 69.5) <= 1.5
    assert (drawn[50, 60] == GREY).all(), "no fill"


def test_angle_tick_points_counter_clockwise(image):
    # 45 degrees counter-clockwise on screen: to the upper right.
    drawn = draw_rotated_boxes(
        image, [[60.0, 50.0, 60.0, 30.0, 45.0]], show_angle=True, thickness=1
    )
    assert (drawn[40, 69] != GREY).any() and (drawn[60, 49] == GREY).all()


def test_first_vertex_dot_is_on_the_polygon_else_on_the_box(image):
    polygon = np.array([[[80, 60], [40, 60], [40, 40], [80, 40]]], float)
    box = [[60.0, 50.0, 40.0, 20.0, 0.0]]
    for polygons, x, y in ((polygon, 80, 60), (None, 40, 40)):
        plain = draw_rotated_boxes(image, box, polygons=polygons, thickness=1)
        dotted = draw_rotated_boxes(
            image, box, polygons=polygons, thickness=1, show_first_vertex=True
        )
        x0, y0, x1, y1 = _changed(plain, dotted)
        assert abs((x0 + x1) / 2 - x) <= 1 and abs((y0 + y1) / 2 - y) <= 1 and x1 - x0 <= 10


def test_labels_are_written_inside_the_image_and_not_over_each_other(image):
    boxes = np.array([[60, 5, 40, 10, 0], [118, 50, 20, 10, 0], [60, 5, 40, 10, 0]], float)
    plain = draw_rotated_boxes(image, boxes)
    once = draw_rotated_boxes(image, boxes[:2], labels=["ship", "plane"], scores=[0.5, 1])
    assert (plain != once).any()
    many = np.repeat(boxes[:1], 200, axis=0)
    few = draw_rotated_boxes(image, many, labels=["ship"] * 2 + [""] * 198)
    assert (draw_rotated_boxes(image, many, labels=["ship"] * 200) == few).all()


def test_extreme_boxes_do_not_raise(image):
    boxes = torch.tensor(
        [
            [float("nan"), 1, 2, 3, 4],
            [1e9, -1e9, 1e9, 1.0, 33],
            [60, 50, 0, 0, 0],
            [60, 50, 1, 1, 0],
            [60, 50, 120, 100, 0],
            [-500, 50, 10, 10, 0],
        ]
    )
    labels = ["nan", "far", "zero", "one pixel", "whole image", "outside"]
    drawn = draw_rotated_boxes(image, boxes, labels=labels, show_angle=True, show_first_vertex=True)
    assert drawn.shape == image.shape
    assert (draw_rotated_boxes(image, np.zeros((0, 5)), labels=[]) == image).all()
    outside = draw_rotated_boxes(image, boxes[5:], labels=labels[5:], show_first_vertex=True)
    assert (outside == image).all()


def test_wrong_arguments(image):
    with pytest.raises(ValueError, match="uint8"):
        draw_rotated_boxes(image.astype(float), np.zeros((0, 5)))
    with pytest.raises(ValueError, match="1 boxes but 2 labels"):
        draw_rotated_boxes(image, [[1, 2, 3, 4, 5]], labels=["a", "b"])
    with pytest.raises(ValueError, match="at least one image"):
        make_contact_sheet([])


def test_class_colors_are_stable_and_differ():
    colors = [class_color(k) for k in range(20)]
    assert colors == [class_color(k) for k in range(20)] and len(set(colors)) == 20
    near = [np.abs(np.subtract(a, b)).sum() for a, b in zip(colors, colors[1:])]
    assert min(near) > 100, "neighbours in the class list look different"


def test_dataset_dict_with_and_without_polygon(image):
    annotation = {"bbox": [60, 50, 40, 20, 0], "category_id": 1, "difficult": 2}
    with_poly = annotation | {"poly": [40, 40, 80, 40, 80, 60, 40, 60]}
    names = ["ship", "plane"]
    assert (
        draw_dataset_dict(image, [annotation], names)
        == draw_dataset_dict(image, [with_poly], names)
    ).all()
    assert (draw_dataset_dict(image, [], names) == image).all()


def test_contact_sheet_holds_every_image():
    images = [
        np.full((h, w, 3), 40 * k + 60, np.uint8)
        for k, (h, w) in enumerate([(10, 40), (200, 90), (64, 64)])
    ]
    sheet = make_contact_sheet(images, ["a", "b" * 200, "c"], columns=2, cell_size=100)
    assert sheet.shape == (240, 200, 3)
    assert [sheet[50, 50, 0], sheet[50, 150, 0], sheet[170, 50, 0]] == [60, 100, 140]
    assert make_contact_sheet(images[:1], columns=4, cell_size=50).shape == (50, 50, 3)
