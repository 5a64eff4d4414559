"""What only a GPU can show: its memory, streams and devices, and torch's machinery around it."""

import pytest
import torch
from torch.autograd import gradcheck

from rsd2.ops import (
    batched_nms_rotated,
    box_iou_rotated,
    max_iou_rotated,
    ms_deform_attn,
    paired_iou_rotated,
    roi_align_rotated,
    sparse_iou_rotated,
)
from rsd2.ops.extension import is_compiled
from rsd2.testing import random_rotated_boxes

pytestmark = pytest.mark.cuda
SHAPES = [(9, 7), (5, 4)]


@pytest.fixture(autouse=True)
def compiled():
    """Skip where the references would run."""
    if not is_compiled("box_iou_rotated", "CUDA"):
        pytest.skip("rsd2 was built without CUDA kernels (FORCE_CUDA=1 builds them)")


def boxes_of(count: int, seed: int, dtype=torch.float32) -> torch.Tensor:
    return random_rotated_boxes(count, 1000.0, 4.0, 60.0, seed=seed).to(dtype)


def attention(dtype=torch.float64):
    """value, locations, weights on the GPU, with gradient."""
    tensors = torch.randn(2, 83, 3, 4), torch.rand(2, 5, 3, 2, 2, 2), torch.rand(2, 5, 3, 2, 2)
    return [tensor.to("cuda", dtype).requires_grad_() for tensor in tensors]


def regions() -> torch.Tensor:
    rois = torch.rand(8, 6) * torch.tensor([0, 60, 50, 40, 40, 360.0])
    rois[:, 0] = torch.arange(8) % 2
    return rois.cuda()


def peak_bytes(function) -> int:
    """Most memory that a call holds at a time, beyond what was held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scenes_have_the_bits_of_the_cpu(dtype):
    one, two = boxes_of(3000, 0, dtype), boxes_of(5000, 1, dtype)
    assert torch.equal(box_iou_rotated(one.cuda(), two.cuda()).cpu(), box_iou_rotated(one, two))
    for function in (max_iou_rotated, lambda a, b: sparse_iou_rotated(a, b, 0.1)):
        for result, expected in zip(function(one.cuda(), two.cuda()), function(one, two)):
            assert torch.equal(result.cpu(), expected)
    boxes, scores = boxes_of(30000, 2, dtype), (torch.rand(30000) * 1000).round()
    for idxs in (torch.zeros(30000).long(), torch.randint(15, (30000,))):
        kept = batched_nms_rotated(boxes.cuda(), scores.cuda(), idxs.cuda(), 0.1)
        assert torch.equal(kept.cpu(), batched_nms_rotated(boxes, scores, idxs, 0.1))


@pytest.mark.parametrize("count", [20000, 80000])
def test_nms_holds_memory_for_boxes_not_for_pairs(count):
    boxes, scores = boxes_of(count, 3).cuda(), torch.rand(count).cuda()
    idxs = torch.zeros(count, dtype=torch.int64, device="cuda")
    held = peak_bytes(lambda: batched_nms_rotated(boxes, scores, idxs, 0.1))
    assert held < 1000 * count + 2**22


def test_reduced_forms_never_hold_the_matrix():
    truths, boxes = boxes_of(2000, 4).cuda(), boxes_of(250000, 5).cuda()
    matrix = 2000 * 250000 * 4
    assert peak_bytes(lambda: max_iou_rotated(truths, boxes)) < matrix / 20
    assert peak_bytes(lambda: sparse_iou_rotated(truths, boxes, 0.9)) < matrix / 20


def test_the_kernel_refuses_scores_of_another_device():
    boxes, scores = boxes_of(3, 0), torch.rand(3)
    for here, there in ((boxes.cuda(), scores), (boxes, scores.cuda())):
        with pytest.raises(ValueError, match="scores must be .* on c"):
            idxs = torch.zeros(3, dtype=torch.int64, device=here.device)
            torch.ops.rsd2.batched_nms_rotated(here, there, idxs, 0.5)


def test_gradients():
    one, two = (boxes_of(20, seed, torch.float64) for seed in (6, 7))
    two[:, :2] = one[:, :2] + 1.7
    boxes = [tensor.cuda().requires_grad_() for tensor in (one, two)]
    assert gradcheck(paired_iou_rotated, boxes, nondet_tol=1e-10)  # atomics add in any order
    inputs = attention()
    assert gradcheck(
        lambda *tensors: ms_deform_attn(tensors[0], SHAPES, *tensors[1:]), inputs, nondet_tol=1e-10
    )
    features, rois = torch.randn(2, 3, 9, 11).double().cuda().requires_grad_(), regions()
    assert gradcheck(
        lambda maps: roi_align_rotated(maps, rois, (3, 2), 0.25), [features], nondet_tol=1e-10
    )


def test_torch_checks_and_compiles_the_operators():
    value, locations, weights = attention(torch.float32)
    flat = [number for pair in SHAPES for number in pair]
    arguments = (value, flat, locations, weights)
    torch.library.opcheck(torch.ops.rsd2.ms_deform_attn.default, arguments)
    boxes = boxes_of(50, 8).cuda()
    torch.library.opcheck(torch.ops.rsd2.box_iou_rotated.default, (boxes, boxes))
    idxs = torch.zeros(50, dtype=torch.int64, device="cuda")
    nms = torch.ops.rsd2.batched_nms_rotated.default
    torch.library.opcheck(nms, (boxes, boxes[:, 0].clone(), idxs, 0.3))
    compiled = torch.compile(lambda a, b: box_iou_rotated(a, b).amax(1), fullgraph=True)
    assert torch.equal(compiled(boxes, boxes), box_iou_rotated(boxes, boxes).amax(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype):
    value, locations, weights = attention(torch.float32)
    expected = ms_deform_attn(value, SHAPES, locations, weights)
    with torch.autocast("cuda", dtype):  # what a linear layer gives there, and what softmax gives
        result = ms_deform_attn(value.to(dtype), SHAPES, locations, weights)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=0.05)
    result.float().sum().backward()
    assert torch.isfinite(value.grad).all() and value.grad.dtype == torch.float32


def test_deterministic_gradients_are_the_same_every_time():
    value, locations, weights = attention(torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(5):
            result = ms_deform_attn(value, SHAPES, locations, weights)
            (gradient,) = torch.autograd.grad(result.square().sum(), value)
            gradients.append(gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients[1:])


def test_work_goes_to_the_current_stream():
    boxes = boxes_of(2000, 9)
    expected = box_iou_rotated(boxes, boxes)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        there = torch.empty_like(boxes, device="cuda")
        torch.cuda._sleep(10**8)  # the copy waits in this stream, and so must the kernel
        there.copy_(boxes.pin_memory(), non_blocking=True)
        result = box_iou_rotated(there, there)
    stream.synchronize()
    assert torch.equal(result.cpu(), expected)


def test_graphs_capture_what_need_not_wait_for_the_host():
    boxes, rois = boxes_of(300, 11).cuda(), regions()
    value, locations, weights = (tensor.detach() for tensor in attention(torch.float32))
    features = torch.randn(2, 4, 9, 11, device="cuda")
    calls = (
        lambda: box_iou_rotated(boxes, boxes),
        lambda: paired_iou_rotated(boxes, boxes.flip(0)),
        lambda: torch.cat([part.double() for part in max_iou_rotated(boxes, boxes)]),
        lambda: ms_deform_attn(value, SHAPES, locations, weights),
        lambda: roi_align_rotated(features, rois, (3, 2), 0.25),
    )
    for call in calls:
        expected = call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # an error where anything waits
            result = call()
        graph.replay()
        assert torch.equal(result, expected)


def test_nms_waits_for_the_number_of_kept_boxes_alone(capfd):
    boxes, scores = boxes_of(3000, 12).cuda(), torch.rand(3000).cuda()
    idxs = torch.randint(15, (3000,)).cuda()
    batched_nms_rotated(boxes, scores, idxs, 0.1)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        batched_nms_rotated(boxes, scores, idxs, 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # torch.ops has C++ warn, on the file of standard error.
    assert capfd.readouterr().err.count("called a synchronizing") == 1


def test_a_device_that_is_not_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    boxes, scores = boxes_of(500, 10), torch.rand(500)
    idxs, rois = torch.zeros(500, dtype=torch.int64), regions().cpu()
    features = torch.randn(2, 4, 9, 11)
    with torch.cuda.device(0):
        there = boxes.to("cuda:1")
        iou = box_iou_rotated(there, there)
        kept = batched_nms_rotated(there, scores.to("cuda:1"), idxs.to("cuda:1"), 0.1)
        pooled = roi_align_rotated(features.to("cuda:1"), rois.to("cuda:1"), (3, 2), 0.25)
        assert torch.cuda.current_device() == 0
        with pytest.raises(ValueError, match="boxes2 are on cuda:0"):
            box_iou_rotated(there, boxes.to("cuda:0"))
    assert iou.device == kept.device == pooled.device == torch.device("cuda:1")
    assert torch.equal(iou.cpu(), box_iou_rotated(boxes, boxes))
    assert torch.equal(kept.cpu(), batched_nms_rotated(boxes, scores, idxs, 0.1))
    expected = roi_align_rotated(features, rois, (3, 2), 0.25)
    torch.testing.assert_close(pooled.cpu(), expected, rtol=0, atol=1e-5)
