import importlib
import math

import numpy as np
import pytest
import shapely
import torch

from rsd2.ops import box_iou_rotated, box_polygon_iou, paired_iou_rotated
from rsd2.structures import boxes_to_corners
from rsd2.testing import random_rotated_boxes

# Reported failures of Detectron2, mmcv and OpenCV with their IoU by exact rational clipping; the
# numbers are exactly the float32 inputs.
REPORTED = {
    "detectron2#2154": (
        [296.6620178222656, 458.73883056640625, 23.515729904174805, 47.677001953125]
        + [0.08795166015625],
        [296.6620178222656, 458.73883056640625, 23.515729904174805, 47.67702102661133]
        + [0.08795099705457687],
        0.9999995882116796,
    ),
    "detectron2#2167": (
        [2563.74462890625, 1436.7901611328125, 2174.703369140625, 214.09500122070312]
        + [115.11834716796875],
        [2563.74462890625, 1436.790283203125, 2174.702880859375, 214.09495544433594]
        + [115.11835479736328],
        0.9999989956679834,
    ),
    "detectron2#1207": ([160.0, 153.0, 230.0, 23.0, -37.0], [190.0, 127.0, 80.0, 21.0, -46.0], 0.0),
    "detectron2#4961": (
        [1010.5, 860.0001220703125, 12.206555366516113, 48.82622528076172, 55.00798034667969],
        [1022.0, 870.4999389648438, 10.816651344299316, 43.26660919189453, 56.30992889404297],
        0.3687586571284967,
    ),
    "mmcv#2621": (
        [0.0, 0.0, 180.64222717285156, 136.36337280273438, -54.77275085449219],
        [0.0, 0.0, 180.64222717285156, 136.36337280273438, -54.77275085449219],
        1.0,
    ),
    "mmcv#2952": (
        [135.07000732421875, 406.7200012207031, 7.944499884615652e-07, 1971.0999755859375]
        + [-101.45936584472656],
        [151.00799560546875, 436.21728515625, 302.0158996582031, 313.7347106933594]
        + [-178.67115783691406],
        2.596644835728214e-09,
    ),
    "opencv#23546": (
        [824.64208984375, 280.2873840332031, 565.0, 140.0, 177.80506896972656],
        [567.3310546875, 270.4252624511719, 275.0, 50.0, -92.19493103027344],
        0.081537565521258,
    ),
}
PAIRS_PER_REGIME = 2000
TOLERANCES = [(torch.float32, 2e-5), (torch.float64, 1e-12)]


class TestReported:
    @pytest.mark.parametrize("report", REPORTED)
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)]
    )
    def test_case(self, report, dtype, tolerance, exact_iou):
        box1, box2, expected = REPORTED[report]
        one, two = torch.tensor([box1], dtype=dtype), torch.tensor([box2], dtype=dtype)
        assert exact_iou(one[0].tolist(), two[0].tolist()) == pytest.approx(expected, rel=1e-12)
        for iou in (box_iou_rotated(one, two)[0, 0], box_iou_rotated(two, one)[0, 0]):
            assert abs(iou.item() - expected) <= tolerance
            # The sub-pixel case is far below any absolute tolerance.
            assert iou.item() == pytest.approx(expected, rel=1e-5)


class TestAccuracy:
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)]
    )
    def test_regime(self, regime, dtype, tolerance, regime_pairs, iou_errors):
        count = 500 if regime == "both thin" else PAIRS_PER_REGIME
        one, two = regime_pairs(regime, count, dtype)
        ious = paired_iou_rotated(one, two)
        assert ious.dtype == dtype
        assert (ious >= 0).all() and (ious <= 1).all()
        errors = iou_errors(ious, one, two, tolerance)
        assert errors.max() <= tolerance, f"pair {errors.argmax()} is off by {errors.max()}"
        # The matrix form culls, the paired one does not; apart boxes may differ by a rounding.
        culled = box_iou_rotated(one[:200], two[:200]).diag()
        torch.testing.assert_close(culled, ious[:200], rtol=0, atol=1e-15)

    def test_every_description_of_a_box_is_the_box(self):
        box = random_rotated_boxes(200, dtype=torch.float64)
        swapped = box[:, [0, 1, 3, 2, 4]]
        for other, turn in ((box, 360), (box, 180), (box, -180), (swapped, 90), (swapped, -90)):
            turned = other + torch.tensor([0, 0, 0, 0, float(turn)])
            iou = paired_iou_rotated(box, turned)
            torch.testing.assert_close(iou, torch.ones_like(iou), rtol=0, atol=1e-12)

    def test_by_hand(self):
        box = torch.tensor([[0.0, 0, 4, 2, 0]])
        others = torch.tensor(
            [
                [1.0, 0, 4, 2, 0],  # shifted by a quarter: 6 / 10
                [0, 0, 2, 4, 0],  # crossed: 4 / 12
                [0, 0, 4, 2, 90],
                [4, 0, 4, 2, 0],  # touching
                [0, 0, math.sqrt(2), math.sqrt(2), 45],  # contained diamond of area 2
            ]
        )
        expected = torch.tensor([[0.6, 1 / 3, 1 / 3, 0, 0.25]])
        torch.testing.assert_close(box_iou_rotated(box, others), expected)

    def test_angle_is_counter_clockwise_on_screen(self):
        # A long box turned by 45 degrees reaches up and to the right, where y is small.
        long = torch.tensor([[0.0, 0, 100, 2, 45]])
        ends = torch.tensor([[30.0, -30, 4, 4, 0], [30, 30, 4, 4, 0]])
        iou = box_iou_rotated(long, ends)[0]
        assert iou[0] > 0.03 and iou[1] == 0

    def test_symmetric_and_invariant(self):
        one = random_rotated_boxes(60, 200.0, seed=1, dtype=torch.float64)
        two = random_rotated_boxes(60, 200.0, seed=2, dtype=torch.float64)
        iou = box_iou_rotated(one, two)
        torch.testing.assert_close(box_iou_rotated(two, one).t(), iou, rtol=0, atol=1e-14)
        shift = torch.tensor([512.0, -256, 0, 0, 0])
        torch.testing.assert_close(box_iou_rotated(one + shift, two + shift), iou)
        scale = torch.tensor([3.0, 3, 3, 3, 1])
        torch.testing.assert_close(box_iou_rotated(one * scale, two * scale), iou)

    def test_agrees_with_torchvision(self):
        torchvision = pytest.importorskip("torchvision")
        one, two = random_rotated_boxes(80, seed=1), random_rotated_boxes(80, seed=2)
        try:
            theirs = torchvision.ops.box_iou(one, two, fmt="cxcywhr")
        except (TypeError, ValueError, AttributeError):
            pytest.skip("this torchvision has no rotated box_iou")
        torch.testing.assert_close(box_iou_rotated(one, two), theirs, rtol=0, atol=2e-5)


class TestCulling:
    def test_equals_the_dense_form_over_chunk_borders(self, monkeypatch):
        one = random_rotated_boxes(30, 300.0, seed=1, dtype=torch.float64)
        two = random_rotated_boxes(40, 300.0, seed=2, dtype=torch.float64)
        dense = paired_iou_rotated(one.repeat_interleave(40, 0), two.repeat(30, 1)).view(30, 40)
        torch.testing.assert_close(box_iou_rotated(one, two), dense, rtol=0, atol=1e-14)
        module = importlib.import_module("rsd2.ops.box_iou_rotated_reference")
        for tests, edges in ((1, 400), (100, 40), (1000, 100000)):
            monkeypatch.setattr(module, "TEST_BUDGET", tests)
            monkeypatch.setattr(module, "EDGE_BUDGET", edges)
            torch.testing.assert_close(box_iou_rotated(one, two), dense, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("offset", [0.0, 1e5, 1e8])
    def test_corner_contact_is_not_lost(self, offset):
        # Circles touch almost exactly: squares that overlap by a sliver at their corners.
        box = torch.tensor([[offset, offset, 10, 10, 0.0]], dtype=torch.float64)
        sliver = 10 - 2.0**-10
        other = box + torch.tensor([sliver, sliver, 0, 0, 0])
        overlap = 2.0**-20
        expected = overlap / (200 - overlap)
        assert box_iou_rotated(box, other).item() == pytest.approx(expected, rel=1e-6)

    def test_far_pairs_are_exactly_zero(self):
        one = random_rotated_boxes(50, 100.0, 4.0, 30.0)
        two = one + torch.tensor([1000.0, 0, 0, 0, 0])
        iou = box_iou_rotated(one, two)
        assert (iou == 0).all() and not torch.signbit(iou).any()

    def test_many_boxes_in_a_dense_scene(self):
        boxes = random_rotated_boxes(3000, 4000.0, 4.0, 60.0)
        iou = box_iou_rotated(boxes, boxes)
        assert torch.equal(iou.diag(), torch.ones(3000))
        assert ((iou >= 0) & (iou <= 1)).all()


class TestInvalidInput:
    BAD = [
        [math.nan, 0, 4, 2, 0],
        [0, math.inf, 4, 2, 0],
        [0, 0, math.nan, 2, 0],
        [0, 0, math.inf, 2, 0],
        [0, 0, 4, 2, math.nan],
        [0, 0, 4, 2, -math.inf],
        [0, 0, 0, 2, 0],
        [0, 0, 4, -2, 0],
        [0, 0, -4, -2, 0],
    ]

    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_gives_zero_and_no_nan_gradient(self, bad, dtype):
        good = torch.tensor([[0.0, 0, 4, 2, 0], [1, 1, 4, 2, 30]], dtype=dtype, requires_grad=True)
        boxes = torch.tensor([bad, [0.5, 0, 4, 2, 0]], dtype=dtype, requires_grad=True)
        iou = box_iou_rotated(good, boxes)
        assert (iou[:, 0] == 0).all() and (iou[:, 1] > 0).all()
        paired = paired_iou_rotated(good, boxes)
        assert paired[0] == 0
        (iou.sum() + paired.sum()).backward()
        assert good.grad.isfinite().all() and boxes.grad.isfinite().all()
        assert (boxes.grad[0] == 0).all()

    def test_extreme_numbers(self):
        boxes = torch.tensor(
            [[0, 0, 3e38, 3e38, 0], [0, 0, 1e-38, 1e-38, 0], [3e38, 0, 4, 2, 1e30]]
        )
        iou = box_iou_rotated(boxes, boxes)
        assert ((iou >= 0) & (iou <= 1)).all()
        assert iou.diag()[:2].tolist() == [1, 1]
        wide = torch.tensor([[0, 0, 1e200, 1, 0], [1e300, 0, 4, 2, 0]], dtype=torch.float64)
        assert (box_iou_rotated(wide, wide) == 0).all()

    def test_empty_and_wrong_shapes(self):
        none, some = torch.zeros(0, 5), torch.ones(3, 5)
        assert box_iou_rotated(none, some).shape == (0, 3)
        assert box_iou_rotated(some, none).shape == (3, 0)
        assert paired_iou_rotated(none, none).shape == (0,)
        assert box_polygon_iou(none, torch.zeros(2, 4, 2)).shape == (0, 2)
        assert box_polygon_iou(some, torch.zeros(0, 4, 2)).shape == (3, 0)
        with pytest.raises(ValueError, match=r"boxes2.*\(3, 4\)"):
            box_iou_rotated(some, torch.ones(3, 4))
        with pytest.raises(ValueError, match="3 and 2"):
            paired_iou_rotated(some, some[:2])
        with pytest.raises(ValueError, match="polygons"):
            box_polygon_iou(some, torch.ones(3, 2, 2))

    def test_dtypes(self):
        box = torch.tensor([[0.0, 0, 4, 2, 0]])
        assert box_iou_rotated(box.half(), box.half()).dtype == torch.float32
        assert box_iou_rotated(box.bfloat16(), box).item() == 1
        assert box_iou_rotated(box, box.double()).dtype == torch.float64


class TestGradient:
    def test_gradcheck_away_from_kinks(self):
        one = random_rotated_boxes(4, 30.0, 10.0, 40.0, seed=3, dtype=torch.float64)
        two = random_rotated_boxes(5, 30.0, 10.0, 40.0, seed=4, dtype=torch.float64)
        one.requires_grad_(), two.requires_grad_()
        assert torch.autograd.gradcheck(box_iou_rotated, (one, two))
        assert torch.autograd.gradcheck(paired_iou_rotated, (one, two[:4]))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("sigma", [0.0, 1e-15, 1e-12, 1e-8, 1e-4])
    def test_bounded_for_near_identical_boxes(self, dtype, sigma):
        one = random_rotated_boxes(500, dtype=dtype)
        one[:100, 4] = 0
        noise = torch.randn(500, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
        two = one + sigma * noise
        two[100:200, 4] += 180
        one.requires_grad_(), two.requires_grad_()
        paired_iou_rotated(one, two).sum().backward()
        # Moving a side by one pixel changes IoU by at most a few times the share of that side.
        for boxes in (one, two):
            length = boxes.detach()[:, 2:4].amin(1)
            assert boxes.grad.isfinite().all()
            assert (boxes.grad[:, :4].abs().amax(1) * length).max() < 4

    @pytest.mark.parametrize(
        "other",
        [
            [0.0, 0, 2, 1, 0],  # contained
            [0, 0, 8, 8, 0],  # containing
            [1, 0.5, 2, 1, 0],  # contained, sharing two edges
            [4, 0, 4, 2, 0],  # touching
            [0, 0, 0, 2, 0],  # no area
            [0, 0, 1e-30, 2, 0],
            [0, 0, 2, 4, 90],
        ],
    )
    def test_finite_at_kinks(self, other):
        for dtype in (torch.float32, torch.float64):
            box = torch.tensor([[0.0, 0, 4, 2, 0]], dtype=dtype, requires_grad=True)
            second = torch.tensor([other], dtype=dtype, requires_grad=True)
            box_iou_rotated(box, second).sum().backward()
            assert box.grad.isfinite().all() and second.grad.isfinite().all()

    def test_ascent_joins_two_boxes(self):
        box = torch.tensor([[0.0, 0, 40, 20, 10]], dtype=torch.float64, requires_grad=True)
        target = torch.tensor([[6.0, -4, 50, 16, 30]], dtype=torch.float64)
        optimizer = torch.optim.Adam([box], lr=0.3)
        for step in range(150):
            optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 150)
            optimizer.zero_grad()
            loss = 1 - paired_iou_rotated(box, target).sum()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.02


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
