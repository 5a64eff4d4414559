"""Rotated IoU and NMS by the CUDA kernels against the references, bit by bit."""

import pytest
import torch

from rsd2.ops import box_iou_rotated_reference as iou_reference
from rsd2.ops.nms_rotated import reference_batched_nms_rotated
from rsd2.testing import random_rotated_boxes

pytestmark = pytest.mark.slow
TYPES = [torch.float32, torch.float64]


def strange_boxes(dtype) -> torch.Tensor:
    """Boxes of every kind that must not break anything: invalid, huge, tiny, far away."""
    nan, inf = float("nan"), float("inf")
    rows = [
        [nan, 0, 1, 1, 0],
        [0, 0, inf, 1, 0],
        [0, 0, 1, 1, nan],
        [5, 5, -1, 3, 0],
        [5, 5, 0, 3, 0],
        [0, 0, 1e30, 1e30, 45],
        [1e30, 1e30, 1e30, 3e30, 10],
        [0, 0, 1e-20, 1e-20, 30],
        [1e-21, 0, 1e-20, 1e-20, 30],
        [1e6, -1e6, 7, 3, 3600000],
        [5, 5, 1e-3, 200, 33],
    ]
    return torch.tensor(rows, dtype=dtype)


def overlaps(iou: torch.Tensor) -> torch.Tensor:
    """IoU without what is no overlap: the reference has some 1e-17 where kernels have 0."""
    return torch.where(iou > iou_reference.NO_OVERLAP, iou, 0.0)


def scene(count: int, dtype, seed: int) -> torch.Tensor:
    """Boxes of 4 to 60 px in 300 px, some of them repeated, and the strange ones."""
    boxes = random_rotated_boxes(max(count, 1), 300.0, 4.0, 60.0, seed=seed).to(dtype)[:count]
    if count > 40:
        boxes[10:20] = boxes[20:30]
        boxes[30:41] = strange_boxes(dtype)
    return boxes


@pytest.mark.parametrize("dtype", TYPES)
class TestIou:
    @pytest.mark.parametrize("sizes", [(1, 1), (33, 257), (70, 530), (300, 31), (0, 5), (5, 0)])
    def test_matrix_has_the_bits_of_the_reference(self, kernels, dtype, sizes):
        one, two = scene(sizes[0], dtype, 0), scene(sizes[1], dtype, 1)
        expected = iou_reference.matrix(one, two)
        result = kernels("box_iou_rotated", one, two)
        assert result.dtype == dtype and torch.equal(overlaps(result), overlaps(expected))
        assert torch.equal(result, torch.ops.rsd2.box_iou_rotated(one, two))
        assert expected.numel() == 0 or sizes == (1, 1) or (expected > 0.1).any()

    def test_pairs_of_every_regime(self, kernels, dtype, regime, regime_pairs, iou_errors):
        one, two = regime_pairs(regime, 300, dtype, 7)
        iou = kernels("paired_iou_rotated", one, two)
        assert torch.equal(iou, iou_reference.paired(one, two))
        tolerance = 2e-5 if dtype == torch.float32 else 1e-12
        assert iou_errors(iou, one, two, tolerance).max() <= tolerance

    def test_into_any_strides(self, kernels, dtype):
        one, two = scene(45, dtype, 2), scene(300, dtype, 3)
        expected = iou_reference.matrix(one, two)
        boxes = [boxes.to(kernels.device) for boxes in (one, two)]
        for out in (
            torch.full((300, 45), 7.0, dtype=dtype, device=kernels.device).t(),
            torch.full((45, 601), 7.0, dtype=dtype, device=kernels.device)[:, 1::2],
        ):
            kernels.ops.box_iou_rotated.out(*boxes, out=out)
            assert torch.equal(overlaps(out.cpu()), overlaps(expected))

    def test_strided_and_expanded_boxes(self, kernels, dtype):
        one = scene(300, dtype, 4)
        strided = one.t().contiguous().t()[::2]
        expanded = one[:1].expand(9, 5)
        for boxes in (strided, expanded):
            expected = iou_reference.matrix(boxes.contiguous(), one)
            result = kernels("box_iou_rotated", boxes, one)
            assert torch.equal(overlaps(result), overlaps(expected))

    @pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
    @pytest.mark.parametrize("sizes", [(70, 530), (300, 31), (0, 5), (5, 0)])
    def test_overlaps_equal_the_reference(self, kernels, dtype, sizes, threshold):
        one, two = scene(sizes[0], dtype, 5), scene(sizes[1], dtype, 6)
        found = kernels("sparse_iou_rotated", one, two, threshold)
        for result, expected in zip(found, iou_reference.sparse(one, two, threshold)):
            assert result.dtype == expected.dtype and torch.equal(result, expected)

    def test_more_overlaps_than_were_expected(self, kernels, dtype):
        boxes = scene(1, dtype, 0).expand(200, 5) + torch.arange(200)[:, None] * 1e-3
        found = kernels("sparse_iou_rotated", boxes, boxes, 0.0)
        assert len(found[0]) == 200 * 200 > 1024 + 8 * 400
        for result, expected in zip(found, iou_reference.sparse(boxes, boxes, 0.0)):
            assert torch.equal(result, expected)

    def test_thresholds_that_pairs_meet_exactly(self, kernels, dtype):
        one = torch.tensor([[0, 0, 4, 2, 0], [0, 0, 8, 8, 90]], dtype=dtype)
        two = torch.tensor([[1, 0, 2, 2, 0], [2, 0, 4, 4, 0], [4, 0, 4, 2, 180]], dtype=dtype)
        # 4 of 8, none, touching; 4 of 64, 16 of 64, a part of 8 beyond the edge
        rows, columns, iou = kernels("sparse_iou_rotated", one, two, 0.25)
        assert (0, 0) in zip(rows.tolist(), columns.tolist())
        assert (1, 1) not in zip(rows.tolist(), columns.tolist())  # 0.25 is not above 0.25
        touching = kernels("sparse_iou_rotated", one[:1], two[2:], 0.0)
        assert len(touching[0]) == 0

    @pytest.mark.parametrize("sizes", [(70, 530), (530, 70), (0, 5), (5, 0)])
    def test_maxima_equal_the_reference(self, kernels, dtype, sizes):
        one, two = scene(sizes[0], dtype, 8), scene(sizes[1], dtype, 9)
        if min(sizes):
            two[5:7] = one[3]  # the first index of equals
        found = kernels("max_iou_rotated", one, two)
        for result, expected in zip(found, iou_reference.maxima(one, two)):
            assert result.dtype == expected.dtype and torch.equal(result, expected)

    def test_wrong_input_is_refused(self, kernels, dtype):
        boxes = scene(3, dtype, 0)
        other = torch.float64 if dtype == torch.float32 else torch.float32
        for bad in (boxes[:, :4], boxes[0], boxes.to(other)):
            with pytest.raises(ValueError, match="boxes must"):
                kernels("box_iou_rotated", boxes, bad)
        with pytest.raises(ValueError, match="as many"):
            kernels("paired_iou_rotated", boxes, boxes[:2])


def candidates(count: int, classes: int, dtype, seed: int):
    """Clustered boxes with duplicates and strange ones, scores with many ties, classes."""
    generator = torch.Generator().manual_seed(seed)
    boxes = scene(max(1, count // 4), torch.float64, seed)
    boxes = boxes[torch.randint(len(boxes), (count,), generator=generator)]
    noise = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    noise[torch.rand(count, generator=generator) < 0.3] = 0  # exact duplicates
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    return (boxes + noise).to(dtype), scores, torch.randint(classes, (count,), generator=generator)


class TestNms:
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("count", [1, 256, 257, 900])
    @pytest.mark.parametrize("classes", [1, 3, 1000])
    @pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
    def test_keeps_what_the_reference_keeps(self, kernels, dtype, count, classes, threshold):
        boxes, scores, idxs = candidates(count, classes, dtype, count + classes)
        expected = reference_batched_nms_rotated(boxes, scores, idxs, threshold)
        result = kernels("batched_nms_rotated", boxes, scores, idxs, threshold)
        assert result.dtype == torch.int64 and torch.equal(result, expected)
        on_cpu = torch.ops.rsd2.batched_nms_rotated(boxes, scores, idxs, threshold)
        assert torch.equal(result, on_cpu)

    def test_long_chains(self, kernels):
        # Each box meets its neighbours only: every other one is kept, across all tiles.
        boxes = torch.tensor([[0.0, 0, 4, 4, 30]]).repeat(1100, 1)
        boxes[:, 0] = torch.arange(1100) * 2.0 + 1e6
        scores, idxs = torch.linspace(1, 0, 1100), torch.zeros(1100, dtype=torch.int64)
        result = kernels("batched_nms_rotated", boxes, scores, idxs, 0.2)
        assert torch.equal(result, reference_batched_nms_rotated(boxes, scores, idxs, 0.2))
        assert 500 < len(result) < 600

    def test_equality_does_not_suppress(self, kernels):
        # Dyadic sides: the IoU is 1 / 3 or 1 / 2 exactly as the threshold is.
        boxes = torch.tensor([[0.0, 0, 4, 4, 0], [2, 0, 4, 4, 90], [0, 1, 4, 2, 0]]) + 1e6
        boxes[:, 2:] -= 1e6
        scores, idxs = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
        third = iou_reference.paired(boxes[:1].double(), boxes[1:2].double()).item()
        for threshold, kept in ((0.5, [0, 1, 2]), (third, [0, 1]), (third - 1e-9, [0])):
            result = kernels("batched_nms_rotated", boxes, scores, idxs, threshold)
            assert result.tolist() == kept

    def test_nothing_and_one_class_per_box(self, kernels):
        boxes = scene(300, torch.float32, 1)
        none = torch.zeros(0, dtype=torch.int64)
        assert len(kernels("batched_nms_rotated", boxes[:0], none.float(), none, 0.5)) == 0
        scores = torch.zeros(300)
        scores[1::2] = -0.0
        idxs = torch.arange(300).flip(0) * 10**10
        result = kernels("batched_nms_rotated", boxes, scores, idxs, 0.0)
        assert result.tolist() == list(range(300))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
    def test_scores_of_any_type(self, kernels, dtype):
        boxes, scores, idxs = candidates(300, 2, torch.float32, 3)
        scores = (scores * 50).to(dtype)
        result = kernels("batched_nms_rotated", boxes, scores, idxs.int(), 0.3)
        assert torch.equal(result, reference_batched_nms_rotated(boxes, scores, idxs, 0.3))

    def test_nan_scores_are_refused(self, kernels):
        boxes, scores, idxs = candidates(30, 2, torch.float32, 4)
        scores[[3, 7]] = float("nan")
        with pytest.raises(ValueError, match="2 of 30 scores are NaN"):
            kernels("batched_nms_rotated", boxes, scores, idxs, 0.3)

    def test_any_order_of_threads_gives_the_same(self, on_host):
        boxes, scores, idxs = candidates(700, 2, torch.float32, 5)
        results = []
        for seed in range(4):
            on_host.seed(seed)
            results.append(on_host.batched_nms_rotated(boxes, scores, idxs, 0.2))
        assert all(torch.equal(results[0], other) for other in results[1:])
