import importlib
import math

import pytest
import torch

from rsd2.ops import (
    box_iou_rotated,
    max_iou_rotated,
    paired_iou_rotated,
    sparse_iou_rotated,
)
from rsd2.ops import box_iou_rotated_reference as reference
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
PAIRS_PER_REGIME = {"kernel": 20_000, "reference": 2000}
REFERENCES = {
    "box_iou_rotated": reference.matrix,
    "box_iou_rotated.out": reference.matrix_out,
    "paired_iou_rotated": reference.paired,
    "sparse_iou_rotated": reference.sparse,
    "max_iou_rotated": reference.maxima,
}
pytestmark = pytest.mark.usefixtures("implementation")


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
    def test_regime(self, regime, dtype, tolerance, regime_pairs, iou_errors, implementation):
        count = PAIRS_PER_REGIME[implementation]
        if regime == "both thin" and dtype == torch.float64:
            count = 500  # a fifth of them is beyond shapely, and exact arithmetic is slow
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


class TestForms:
    """The matrix, written elsewhere, listed or reduced: one set of numbers."""

    def sets(self, dtype=torch.float64):
        one = random_rotated_boxes(40, 300.0, seed=1, dtype=dtype)
        two = random_rotated_boxes(70, 300.0, seed=2, dtype=dtype)
        one[3], two[5], two[6] = two[11], two[11], math.nan  # equal maxima, and an invalid box
        return one, two, box_iou_rotated(one, two)

    def test_out_of_any_strides(self, dtype):
        one, two, iou = self.sets(dtype)
        for out in (
            torch.full((40, 70), math.nan, dtype=dtype),
            torch.full((70, 40), math.nan, dtype=dtype).t(),
            torch.full((80, 140), math.nan, dtype=dtype)[::2, ::2],
            torch.full((40, 99), math.nan, dtype=dtype)[:, 5:75],
        ):
            assert box_iou_rotated(one, two, out=out) is out
            assert torch.equal(out, iou)

    def test_out_that_does_not_fit_is_named(self):
        one, two, _ = self.sets()
        with pytest.raises(ValueError, match=r"out must be \(40, 70\).*\(70, 40\)"):
            box_iou_rotated(one, two, out=torch.zeros(70, 40, dtype=torch.float64))
        with pytest.raises(ValueError, match="float32"):
            box_iou_rotated(one, two, out=torch.zeros(40, 70))
        for expanded in (torch.zeros(1, 70), torch.zeros(40, 1)):
            with pytest.raises(ValueError, match="out is expanded"):
                box_iou_rotated(one, two, out=expanded.double().expand(40, 70))
        with pytest.raises(RuntimeError, match="no gradient"):
            box_iou_rotated(one.requires_grad_(), two, out=torch.zeros(40, 70).double())

    @pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 1.0])
    def test_sparse_lists_what_exceeds_the_threshold(self, threshold, dtype):
        one, two, iou = self.sets(dtype)
        rows, columns, values = sparse_iou_rotated(one, two, threshold)
        # No IoU of this scene is within rounding of a threshold but 0 and 1.
        expected = torch.nonzero(iou > max(threshold, 1e-12))
        assert torch.equal(torch.stack([rows, columns], dim=1), expected)
        assert torch.equal(values, iou[rows, columns])
        assert threshold > 0.1 or len(rows) > 20

    @pytest.mark.parametrize("wide", [True, False])
    def test_maxima_are_those_of_the_matrix(self, wide, dtype):
        one, two, iou = self.sets(dtype)
        if not wide:
            one, two, iou = two, one, box_iou_rotated(two, one)
        iou = torch.where(iou > 1e-12, iou, 0.0)  # less is a rounding, no overlap
        found = max_iou_rotated(one, two)
        for value, index, (best, first) in (
            (found.row_max, found.row_argmax, iou.max(1)),
            (found.column_max, found.column_argmax, iou.max(0)),
        ):
            assert torch.equal(value, best)
            first = torch.where(best > 0, first, -1)
            assert torch.equal(index, first)
        assert 0 < (found.column_argmax == -1).sum() < len(two)

    def test_first_of_equal_maxima_wins(self):
        box = torch.tensor([[0.0, 0, 4, 2, 30]])
        far = box + torch.tensor([100.0, 0, 0, 0, 0])
        found = max_iou_rotated(torch.cat([far, box, box]), torch.cat([far + 50, box, box, box]))
        assert found.row_argmax.tolist() == [-1, 1, 1]
        assert found.column_argmax.tolist() == [-1, 1, 1, 1]
        assert found.row_max.tolist() == [0, 1, 1]

    def test_touching_boxes_are_no_overlap(self):
        generator = torch.Generator().manual_seed(0)
        angle = torch.rand(200, generator=generator, dtype=torch.float64) * 360
        radians = torch.deg2rad(angle)
        one = torch.tensor([50.0, 40, 8, 4, 0], dtype=torch.float64).repeat(200, 1)
        one[:, 4] = angle
        two = one.clone()
        two[:, 0] += 8 * radians.cos()
        two[:, 1] -= 8 * radians.sin()
        for i in range(200):
            assert len(sparse_iou_rotated(one[i : i + 1], two[i : i + 1])[0]) == 0
            assert max_iou_rotated(one[i : i + 1], two[i : i + 1]).row_argmax.item() == -1

    def test_empty_sets(self):
        none, some = torch.zeros(0, 5), torch.ones(3, 5)
        for one, two in ((none, some), (some, none), (none, none)):
            assert box_iou_rotated(one, two, out=torch.zeros(len(one), len(two))).numel() == 0
            assert all(len(part) == 0 for part in sparse_iou_rotated(one, two))
            found = max_iou_rotated(one, two)
            assert found.row_argmax.tolist() == [-1] * len(one)
            assert found.column_max.tolist() == [0] * len(two)

    def test_threshold_is_checked(self):
        box = torch.ones(1, 5)
        for threshold in (-0.1, 1.5, math.nan):
            with pytest.raises(ValueError, match=f"threshold.*{threshold}"):
                sparse_iou_rotated(box, box, threshold)


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
        with pytest.raises(ValueError, match=r"boxes2.*\(3, 4\)"):
            box_iou_rotated(some, torch.ones(3, 4))
        with pytest.raises(ValueError, match="3 and 2"):
            paired_iou_rotated(some, some[:2])
        for call in (box_iou_rotated, paired_iou_rotated, sparse_iou_rotated, max_iou_rotated):
            with pytest.raises(ValueError, match="boxes2 are on meta"):
                call(some, some.to("meta"))

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
