import math

import numpy as np
import pytest
import shapely
import torch

from rsd2.ops import box_iou_rotated, box_polygon_iou, paired_box_polygon_iou
from rsd2.structures import boxes_to_corners
from rsd2.testing import random_rotated_boxes


class TestPolygons:
    def polygons(self, count: int, vertices: int, seed: int = 0) -> np.ndarray:
        """Star-shaped, mostly concave polygons (M, V, 2) in a 60-px scene."""
        generator = np.random.default_rng(seed)
        angle = np.sort(generator.uniform(0, 2 * np.pi, (count, vertices)), axis=1)
        radius = generator.uniform(5, 40, (count, vertices, 1))
        center = generator.uniform(0, 60, (count, 1, 2))
        return center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    @pytest.mark.parametrize("vertices", [3, 4, 5, 9])
    def test_agrees_with_shapely_in_either_orientation(self, vertices):
        boxes = random_rotated_boxes(40, 60.0, 4.0, 50.0, dtype=torch.float64)
        points = self.polygons(30, vertices)
        shapes = shapely.polygons(points)
        simple = shapely.is_valid(shapes)
        assert simple.sum() > 10
        corners = shapely.polygons(boxes_to_corners(boxes).numpy())[:, None]
        inter = shapely.area(shapely.intersection(corners, shapes[simple]))
        union = shapely.area(corners) + shapely.area(shapes[simple]) - inter
        polygons = torch.from_numpy(points[simple])
        for given_polygons in (polygons, polygons.flip(1)):
            iou = box_polygon_iou(boxes, given_polygons)
            torch.testing.assert_close(iou, torch.from_numpy(inter / union), rtol=0, atol=1e-12)

    def test_agrees_with_exact_arithmetic_and_with_boxes(self, exact_iou):
        boxes = random_rotated_boxes(20, 60.0, 4.0, 50.0, seed=1, dtype=torch.float64)
        others = random_rotated_boxes(20, 60.0, 4.0, 50.0, seed=2, dtype=torch.float64)
        iou = box_polygon_iou(boxes, boxes_to_corners(others))
        torch.testing.assert_close(iou, box_iou_rotated(boxes, others), rtol=0, atol=1e-13)
        quads = boxes_to_corners(others) + torch.randn(20, 4, 2, dtype=torch.float64) * 1e-3
        iou = box_polygon_iou(boxes, quads)
        for i in range(20):
            expected = exact_iou(boxes[i].tolist(), quads[i].tolist())
            assert iou[i, i].item() == pytest.approx(expected, abs=1e-12)

    def test_padding_with_the_last_vertex_changes_nothing(self):
        boxes = random_rotated_boxes(10, 60.0, 4.0, 50.0, dtype=torch.float64)
        polygons = torch.from_numpy(self.polygons(5, 5))
        padded = torch.cat([polygons, polygons[:, -1:].expand(-1, 3, -1)], dim=1)
        torch.testing.assert_close(box_polygon_iou(boxes, padded), box_polygon_iou(boxes, polygons))

    def test_invalid_polygons_give_zero(self):
        box = torch.tensor([[0.0, 0, 4, 2, 0]], requires_grad=True)
        polygons = torch.zeros(4, 4, 2)
        polygons[0, 0, 0] = math.nan
        polygons[1, 2, 1] = math.inf
        polygons[2, :, 0] = torch.arange(4.0)  # on a line
        polygons.requires_grad_()
        iou = box_polygon_iou(box, polygons)
        assert iou.tolist() == [[0, 0, 0, 0]]
        iou.sum().backward() if iou.requires_grad else None
        assert box.grad is None or box.grad.isfinite().all()

    def test_large_coordinates_keep_digits(self):
        box = torch.tensor([[1e5, 1e5, 40, 20, 30.0]], dtype=torch.float64)
        iou = box_polygon_iou(box, boxes_to_corners(box))
        assert iou.item() == pytest.approx(1.0, abs=1e-11)

    def test_gradcheck(self):
        boxes = random_rotated_boxes(3, 30.0, 10.0, 40.0, seed=3, dtype=torch.float64)
        polygons = torch.from_numpy(self.polygons(4, 5, seed=2))
        boxes.requires_grad_(), polygons.requires_grad_()
        assert torch.autograd.gradcheck(box_polygon_iou, (boxes, polygons))

    def test_pairs_are_the_diagonal(self):
        boxes = random_rotated_boxes(12, 60.0, 4.0, 50.0, dtype=torch.float64)
        polygons = torch.from_numpy(self.polygons(12, 5))
        paired = paired_box_polygon_iou(boxes, polygons)
        torch.testing.assert_close(
            paired, box_polygon_iou(boxes, polygons).diag(), rtol=0, atol=1e-15
        )

    def test_empty_and_wrong_shapes(self):
        none, some = torch.zeros(0, 5), torch.ones(3, 5)
        assert box_polygon_iou(none, torch.zeros(2, 4, 2)).shape == (0, 2)
        assert box_polygon_iou(some, torch.zeros(0, 4, 2)).shape == (3, 0)
        with pytest.raises(ValueError, match="polygons"):
            box_polygon_iou(some, torch.ones(3, 2, 2))
        with pytest.raises(ValueError, match="3 and 2"):
            paired_box_polygon_iou(some, torch.ones(2, 4, 2))
        for call in (box_polygon_iou, paired_box_polygon_iou):
            with pytest.raises(ValueError, match="polygons are on meta"):
                call(some, torch.ones(3, 4, 2, device="meta"))
