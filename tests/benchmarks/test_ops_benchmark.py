"""The cases of ``python -m benchmarks ops`` at small sizes: ours and the peer do the same work.

Times are not judged. ``pytest tests/benchmarks --benchmark-enable`` shows them; by default each
case runs once.
"""

from __future__ import annotations

import importlib

import pytest
import torch


@pytest.fixture
def modules(monkeypatch):
    """The modules of cases and peers."""
    return {
        name: importlib.import_module(f"benchmarks.{name}")
        for name in ("ops", "peers", "seeded_boxes")
    }


@pytest.fixture
def small(modules, monkeypatch):
    """Function (kind of cases) -> those that are not slow, on maps of a few pixels."""
    levels = [(8, 8), (4, 4), (2, 2), (1, 1)]
    monkeypatch.setattr(modules["ops"], "LEVELS", levels)
    monkeypatch.setattr(modules["ops"], "POSITIONS", sum(h * w for h, w in levels))

    def choose(kind: str):
        cases = getattr(modules["ops"], kind)("cpu")
        return [case for case in cases if not case.is_slow]

    return choose


def agree(ours, theirs) -> None:
    """Same numbers, whatever holds them; float32 on either side."""
    if not isinstance(ours, tuple):
        ours, theirs = (ours,), (theirs,)
    for one, two in zip(ours, theirs, strict=True):
        one, two = torch.as_tensor(one), torch.as_tensor(two)
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("index", range(3))
def test_iou(small, benchmark, index):
    case = small("iou_cases")[index]
    result = benchmark(case.ours)
    for peer in case.peers.values():
        agree(result, peer())


def test_pairs_above_a_threshold(small, benchmark):
    (case,) = [case for case in small("pair_cases") if case.name.startswith("sparse")]
    rows, columns, iou = benchmark(case.ours)
    for peer in case.peers.values():
        their_rows, their_columns, their_iou = map(torch.as_tensor, peer())
        ours = torch.zeros(1000, 1000, dtype=torch.float64)
        ours[rows, columns] = iou.double()
        theirs = torch.zeros_like(ours)
        theirs[their_rows, their_columns] = their_iou.double()
        # A pair within rounding of the threshold may be listed by one of them only.
        apart = (ours - theirs).abs() > 1e-4
        assert len(rows) > 100 and ((torch.maximum(ours, theirs)[apart] - 0.1).abs() < 1e-4).all()


def test_maxima(small, benchmark):
    (case,) = [case for case in small("pair_cases") if case.name.startswith("max")]
    ours = benchmark(case.ours)
    (peer,) = case.peers.values()
    theirs = peer()
    agree(ours[0], theirs[0])
    agree(ours[2], theirs[2])


@pytest.mark.parametrize("index", range(4))
def test_nms(small, benchmark, index):
    case = small("nms_cases")[index]
    kept = benchmark(case.ours)
    (peer,) = case.peers.values()
    assert kept.tolist() == peer().tolist()


@pytest.mark.parametrize("index", range(4))
def test_attention(small, benchmark, index):
    case = small("attention_cases")[index]
    result = benchmark(case.ours)
    for peer in case.peers.values():
        agree(result, peer())


@pytest.mark.parametrize("index", range(2))
def test_roi_align(small, benchmark, index):
    case = small("roi_cases")[index]
    result = benchmark(case.ours)
    assert result.shape == (1000, 256, 7, 7)
    for peer in case.peers.values():
        agree(result, peer())


def test_smallest_rectangles(small, benchmark):
    (case,) = small("conversion_cases")
    boxes = benchmark(case.ours)
    (peer,) = case.peers.values()
    areas = torch.tensor([w * h for _, (w, h), _ in peer()])
    torch.testing.assert_close(boxes[:, 2] * boxes[:, 3], areas, rtol=2e-3, atol=1e-2)


def test_scenes_are_what_they_are_called(modules):
    boxes_of = modules["seeded_boxes"]
    boxes = boxes_of.uniform(4000, 0)
    assert torch.equal(boxes, boxes_of.uniform(4000, 0))
    assert not torch.equal(boxes, boxes_of.uniform(4000, 1))
    assert boxes[:, 2].min() >= 8 and boxes[:, 2].max() <= 400
    aspect = boxes[:, 2] / boxes[:, 3]
    assert aspect.min() >= 1 and aspect.max() <= 10.001
    # Log-uniform: half of the sides are below the geometric mean.
    assert abs((boxes[:, 2] < (8 * 400) ** 0.5).float().mean() - 0.5) < 0.03
    dense = boxes_of.dense(640, 0)
    assert dense.shape == (640, 5) and dense[:, 2].max() < 25
    assert (dense[:64, 4] - dense[0, 4]).abs().max() < 0.21
    boxes, scores, labels = boxes_of.candidates(1000, 15, 8, 0)
    assert boxes.shape == (1000, 5) and len(scores) == 1000 and len(labels.unique()) == 15
