"""Kernels and references of the rotated operators: the same bits, on any input."""

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd2.ops import box_iou_rotated_reference as reference
from rsd2.ops.extension import is_compiled
from rsd2.testing import random_rotated_boxes

NMS = importlib.import_module("rsd2.ops.nms_rotated")
KERNELS = torch.ops.rsd2

pytestmark = pytest.mark.skipif(
    not is_compiled("box_iou_rotated", "CPU"), reason="no compiled library"
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_regime_has_the_same_bits(regime, dtype, regime_pairs):
    one, two = regime_pairs(regime, 20_000, dtype)
    assert torch.equal(KERNELS.paired_iou_rotated(one, two), reference.paired(one, two))


@pytest.mark.parametrize("thickness", [1e-1, 1e-3, 1e-6, 1e-9])
def test_error_of_very_thin_boxes_grows_with_their_proportion(thickness, exact_iou):
    # Slid along themselves: the rounding of a sine counts as the length does.
    one = random_rotated_boxes(40, 1000.0, 50.0, 300.0, dtype=torch.float64)
    one[:, 3] = thickness
    two = one.clone()
    radians, slide = torch.deg2rad(one[:, 4]), one[:, 2] * torch.linspace(-0.5, 0.5, 40)
    two[:, 0] += slide * radians.cos()
    two[:, 1] -= slide * radians.sin()
    iou = KERNELS.paired_iou_rotated(one, two)
    assert torch.equal(iou, reference.paired(one, two))
    exact = [exact_iou(*pair) for pair in zip(one.tolist(), two.tolist())]
    bound = (1e-16 * one[:, 2] / thickness).clamp(min=1e-12)
    assert ((iou - torch.tensor(exact, dtype=torch.float64)).abs() <= bound).all()
    assert iou.mean() > 0.3


centers = st.one_of(
    st.sampled_from([0.0, -1.0, 1e6, 1e15, -3e38, math.nan, math.inf]), st.floats(-50, 50, width=32)
)
sides = st.one_of(
    st.sampled_from([0.0, -1.0, 1e-45, 1e-30, 1e-16, 1e-3, 1.0, 1e15, 3e38, math.nan, math.inf]),
    st.floats(0, 60, width=32),
)
turns = st.one_of(
    st.sampled_from([0.0, 45.0, -45.0, 90.0, 180.0, 1e-45, 1e-6, 44.999996, 1e9, math.nan]),
    st.floats(-720, 720, width=32),
)


@st.composite
def box_sets(draw, dtype: torch.dtype, max_boxes: int = 6) -> torch.Tensor:
    """Boxes (N, 5) with strange numbers, copies of one another, and any strides."""
    kinds = (centers, centers, sides, sides, turns)
    box = st.tuples(*kinds)
    boxes = draw(st.lists(box, max_size=max_boxes))
    if boxes and draw(st.booleans()):
        boxes.append(boxes[0])
    values = torch.tensor(boxes, dtype=dtype).reshape(-1, 5)
    layout = draw(st.sampled_from(["dense", "transposed", "every second", "reversed columns"]))
    if layout == "transposed":
        return values.t().contiguous().t()
    if layout == "every second":
        return torch.stack([values, torch.full_like(values, 7.0)], dim=1).flatten(0, 1)[::2]
    if layout == "reversed columns":
        return torch.cat([torch.zeros_like(values), values], dim=1)[:, 5:]
    return values


@st.composite
def two_sets(draw) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return draw(box_sets(dtype)), draw(box_sets(dtype))


@given(two_sets())
@settings(max_examples=200, deadline=None)
def test_matrix_and_pairs_of_strange_boxes(sets):
    one, two = sets
    iou = KERNELS.box_iou_rotated(one, two)
    assert iou.isfinite().all() and ((iou >= 0) & (iou <= 1)).all()
    # The reference finds near pairs by another test: pairs apart may differ by a rounding.
    torch.testing.assert_close(iou, reference.matrix(one, two), rtol=0, atol=1e-15)
    count = min(len(one), len(two))
    pairs = KERNELS.paired_iou_rotated(one[:count], two[:count])
    assert torch.equal(pairs, reference.paired(one[:count], two[:count]))
    assert torch.equal(pairs, iou.diag()[:count])
    out = torch.full((len(two), len(one)), math.nan, dtype=iou.dtype).t()
    KERNELS.box_iou_rotated.out(one, two, out=out)
    assert torch.equal(out, iou)


@given(two_sets(), st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_overlaps_and_maxima_of_strange_boxes(sets, threshold):
    one, two = sets
    found = KERNELS.sparse_iou_rotated(one, two, threshold)
    expected = reference.sparse(one, two, threshold)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    found, expected = KERNELS.max_iou_rotated(one, two), reference.maxima(one, two)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_kept_boxes_of_strange_ones(data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    boxes = data.draw(box_sets(dtype, max_boxes=12))
    count = len(boxes)
    numbers = st.lists(st.sampled_from([0.5, 0.25, -math.inf, math.inf, 0.0, -0.0]))
    scores = torch.tensor((data.draw(numbers) + [0.5] * count)[:count], dtype=dtype)
    labels = st.lists(st.sampled_from([0, 1, -(2**62), 2**62]))
    idxs = torch.tensor((data.draw(labels) + [0] * count)[:count], dtype=torch.int64)
    threshold = data.draw(st.sampled_from([0.0, 1e-9, 1 / 3, 0.5, 1.0]))
    kept = KERNELS.batched_nms_rotated(boxes, scores, idxs, threshold)
    assert torch.equal(kept, NMS.reference_batched_nms_rotated(boxes, scores, idxs, threshold))


def adversarial_scenes():
    """Name -> (boxes, classes, thresholds) of scenes whose decisions are close."""
    generator = torch.Generator().manual_seed(0)
    base = random_rotated_boxes(150, 300.0, 8.0, 60.0, dtype=torch.float64)
    copies = base.repeat(4, 1)
    shift = torch.randint(0, 9, (600, 1), generator=generator) / 8.0
    unit = torch.cat([torch.ones(600, 1), torch.zeros(600, 4)], dim=1).double()
    sizes = 2.0 ** torch.randint(0, 4, (600, 2), generator=generator).double()
    places = torch.randint(0, 64, (600, 2), generator=generator).double() / 2
    angle = 90.0 * torch.randint(-2, 3, (600, 1), generator=generator).double()
    dyadic = torch.cat([places, sizes, angle], dim=1)
    # Copies shifted along their own long side by half of it: an IoU of 1/3 but for roundings.
    radians = torch.deg2rad(base[:, 4])
    step = torch.stack([radians.cos(), -radians.sin()], dim=1) * base[:, 2:3] / 2
    thirds = torch.cat([base, torch.cat([base[:, :2] + step, base[:, 2:]], dim=1)])
    zero, each = torch.zeros(600).long(), torch.arange(600)
    thresholds = [0.0, 1 / 9, 0.2, 0.25, 1 / 3, 0.5, 0.6, 1.0]
    return {
        "exact duplicates": (copies, zero, thresholds),
        "one class per box": (copies, each, thresholds),
        "shifted by eighths": (copies + shift * unit, zero, thresholds),
        "axis-aligned with dyadic sides": (dyadic, zero, thresholds),
        "coordinates of 1e6": (copies + 1e6 * unit + shift * unit, zero, thresholds),
        "a third": (thirds, zero[:300], [1 / 3, 1 / 3 + 1e-7, 1 / 3 - 1e-7]),
        "no box": (copies[:0], zero[:0], thresholds),
    }


@pytest.mark.parametrize("name", adversarial_scenes())
def test_kept_boxes_of_close_decisions(name, dtype):
    boxes, idxs, thresholds = adversarial_scenes()[name]
    boxes = boxes.to(dtype)
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 8, (len(boxes),), generator=generator).to(dtype) / 8  # many ties
    for threshold in thresholds:
        kept = KERNELS.batched_nms_rotated(boxes, scores, idxs, threshold)
        expected = NMS.reference_batched_nms_rotated(boxes, scores, idxs, threshold)
        assert torch.equal(kept, expected)
        listed = KERNELS.sparse_iou_rotated(boxes, boxes, threshold)
        expected = reference.sparse(boxes, boxes, threshold)
        assert all(torch.equal(a, b) for a, b in zip(listed, expected))


def test_equality_is_no_excess():
    # IoU exactly 1/3: two unit squares side by side by half, of dyadic sides.
    boxes = torch.tensor([[0.0, 0, 1, 1, 0], [0.5, 0, 1, 1, 90], [8, 8, 2, 1, 0]])
    for run in (KERNELS.batched_nms_rotated, NMS.reference_batched_nms_rotated):
        for threshold, kept in ((1 / 3, [0, 1, 2]), (math.nextafter(1 / 3, 0), [0, 2])):
            found = run(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long(), threshold)
            assert found.tolist() == kept


def test_large_sets_are_split_over_tiles_and_threads():
    one = random_rotated_boxes(300, 2000.0, 4.0, 80.0, seed=1)
    two = random_rotated_boxes(5000, 2000.0, 4.0, 80.0, seed=2)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for first, second in ((one, two), (two, one)):
                torch.testing.assert_close(
                    KERNELS.box_iou_rotated(first, second),
                    reference.matrix(first, second),
                    rtol=0,
                    atol=1e-15,
                )
                for kernel, plain in (
                    (KERNELS.sparse_iou_rotated(first, second, 0.1), reference.sparse),
                    (KERNELS.max_iou_rotated(first, second), reference.maxima),
                ):
                    extra = (0.1,) if plain is reference.sparse else ()
                    assert all(map(torch.equal, kernel, plain(first, second, *extra)))
            idxs = torch.arange(5000) % 7
            scores = torch.linspace(0, 1, 5000)
            kept = KERNELS.batched_nms_rotated(two, scores, idxs, 0.1)
            assert torch.equal(kept, NMS.reference_batched_nms_rotated(two, scores, idxs, 0.1))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("operator", ["box_iou_rotated", "sparse_iou_rotated", "max_iou_rotated"])
def test_kernels_refuse_what_they_cannot_read(operator):
    call, extra = getattr(KERNELS, operator), (0.5,) if "sparse" in operator else ()
    good = torch.zeros(3, 5)
    for bad in (torch.zeros(3, 4), torch.zeros(15), torch.zeros(3, 5, dtype=torch.float64)):
        with pytest.raises(ValueError, match="rotated boxes must be"):
            call(good, bad, *extra)
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        call(good.half(), good.half(), *extra)


def test_nms_kernel_refuses_what_it_cannot_read():
    boxes, scores, idxs = torch.zeros(3, 5), torch.zeros(3), torch.zeros(3).long()
    for bad in ((boxes, scores[:2], idxs), (boxes, scores, idxs[:2]), (boxes, scores, idxs.int())):
        with pytest.raises(ValueError, match=r"must be \(3,\)"):
            KERNELS.batched_nms_rotated(*bad, 0.5)
