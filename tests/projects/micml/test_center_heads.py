"""Targets, losses and decoding of centre heads, against values by hand and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from rsd2.projects.micml.center_losses import center_losses, heatmap_loss
from rsd2.projects.micml.center_targets import CenterTargets, draw_targets, gaussian_radius
from rsd2.projects.micml.decode import decode

CPU = torch.device("cpu")


def frame(boxes: list, classes: list | None = None, size: tuple[int, int] = (32, 48)) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    return instances


def random_boxes(count: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([width - 12.0, height - 12])
    return torch.cat([corners, corners + 1 + 10 * torch.rand(count, 2, generator=generator)], 1)


@pytest.mark.parametrize(
    ("sides", "official", "at_least_one", "corrected"),
    [
        ((1, 1), 0, 1, 0),
        ((3, 3), 0, 1, 0),
        ((4, 4), 1, 1, 0),
        ((7, 7), 1, 1, 0),
        ((8, 8), 2, 2, 0),
        ((11, 11), 3, 3, 0),
        ((15, 15), 4, 4, 1),
        ((3, 5), 1, 1, 0),
        ((6, 12), 2, 2, 0),
        ((100, 100), 27, 27, 8),
    ],
)
def test_the_radius_rules(
    sides: tuple[int, int], official: int, at_least_one: int, corrected: int
) -> None:
    """The official values are those measured on the released program."""
    values = {"official": official, "at_least_one": at_least_one, "corrected": corrected}
    assert {rule: gaussian_radius(*sides, rule) for rule in values} == values
    assert gaussian_radius(*sides[::-1]) == official


def test_a_corner_moved_by_the_corrected_radius_keeps_the_overlap() -> None:
    """What CornerNet derives: moved by r, boxes still overlap by 0.7; moved by r + 1, less."""

    def worst(w: int, h: int, r: int) -> float:
        inside = (w - 2 * r) * (h - 2 * r) / (w * h)
        outside = w * h / ((w + 2 * r) * (h + 2 * r))
        shared = (w - r) * (h - r)
        return min(inside, outside, shared / (2 * w * h - shared))

    for w, h in ((60, 60), (40, 90), (13, 200), (300, 20)):
        radius = gaussian_radius(w, h, "corrected")
        assert worst(w, h, radius) >= 0.7 > worst(w, h, radius + 1)


def test_the_heat_map_by_hand() -> None:
    targets = draw_targets([frame([[9.5, 4.5, 14.5, 9.5]])], (32, 48), 1, CPU)
    heat = targets.heatmap[0, 0]
    assert heat[7, 12] == 1  # the centre (12, 7), radius 1, sigma 1/2
    assert heat[6, 12] == heat[7, 13] == pytest.approx(math.exp(-2), abs=1e-7)  # 0.135
    assert heat[6, 13] == pytest.approx(math.exp(-4), abs=1e-7)  # 0.018
    assert heat[5, 12] == 0 and (heat > 0).sum() == 9
    assert targets.size.tolist() == [[[5, 5]]] and targets.offset.tolist() == [[[0, 0]]]
    assert targets.indices.tolist() == [[7 * 48 + 12]] and targets.mask.all()


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (40, 40)])
@pytest.mark.parametrize("rule", ["official", "at_least_one", "corrected"])
def test_the_heat_map_against_loops(size: tuple[int, int], rule: str) -> None:
    """Portrait, landscape and square frames, with crowds that overlap and cross the border."""
    height, width = size
    boxes = random_boxes(60, size, seed=1)
    boxes[:5] -= 4.0
    boxes[5:10] += torch.tensor([11.0, 11, 14, 14])
    classes = [k % 3 for k in range(60)]
    targets = draw_targets([frame(boxes.tolist(), classes, size)], size, 3, CPU, rule)
    expected = np.zeros((3, height, width))
    for (x0, y0, x1, y1), label in zip(boxes.double().tolist(), classes):
        w, h = min(x1 - x0, width - 1), min(y1 - y0, height - 1)
        cx = int(min(max((x0 + x1) / 2, 0), width - 1))
        cy = int(min(max((y0 + y1) / 2, 0), height - 1))
        radius = gaussian_radius(math.ceil(w), math.ceil(h), rule)
        sigma = (2 * radius + 1) / 6
        for y in range(max(cy - radius, 0), min(cy + radius + 1, height)):
            for x in range(max(cx - radius, 0), min(cx + radius + 1, width)):
                value = math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
                expected[label, y, x] = max(expected[label, y, x], value)
    np.testing.assert_allclose(targets.heatmap[0].numpy(), expected, atol=1e-6)


def test_flipping_the_labels_flips_the_targets() -> None:
    """On centres in the middle of pixels, so that flipping maps pixels to pixels."""
    boxes = torch.tensor([[3.0, 5, 10, 10], [30, 20, 37, 29], [20, 8, 25, 11]])
    flipped = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor(
        [48.0, 0, 48, 0]
    )
    one, other = (
        draw_targets([frame(b.tolist())], (32, 48), 1, CPU).heatmap for b in (boxes, flipped)
    )
    assert torch.equal(one.flip(-1), other)


def test_frames_of_a_batch_have_their_own_rows() -> None:
    """None, 500 and one object; each frame is as if it were alone."""
    crowd = random_boxes(500, (32, 48), seed=2).tolist()
    frames = [frame([]), frame(crowd), frame([[1, 1, 5, 6]])]
    targets = draw_targets(frames, (32, 48), 1, CPU)
    assert targets.mask.sum(dim=1).tolist() == [0, 500, 1]
    assert targets.heatmap[0].sum() == 0 and targets.size[0].abs().sum() == 0
    for index, single in enumerate(frames):
        alone = draw_targets([single], (32, 48), 1, CPU)
        assert torch.equal(alone.heatmap[0], targets.heatmap[index])
        count = int(targets.mask[index].sum())
        for name in ("size", "offset", "indices"):
            assert torch.equal(getattr(alone, name)[0], getattr(targets, name)[index, :count])


def test_boxes_that_are_none_are_left_out() -> None:
    boxes = [
        [4, 4, 4, 9],
        [4, 9, 8, 4],
        [float("nan"), 0, 5, 5],
        [0, 0, float("inf"), 5],
        [1, 1, 4, 4],
    ]
    targets = draw_targets([frame(boxes)], (32, 48), 1, CPU)
    assert targets.mask.sum() == 1 and (targets.heatmap == 1).sum() == 1
    assert draw_targets([frame([])], (32, 48), 1, CPU).size.shape == (1, 0, 2)


def test_a_box_larger_than_the_frame_is_cut() -> None:
    targets = draw_targets([frame([[-100, -10, 200, 60]])], (32, 48), 1, CPU)
    assert targets.size.tolist() == [[[47, 31]]]
    assert targets.indices.tolist() == [[25 * 48 + 47]]  # the centre (50, 25) moves to the border


def test_an_unknown_radius_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="official, at_least_one, corrected, got 'none'"):
        draw_targets([frame([])], (32, 48), 1, CPU, "none")


def outputs_for(targets: CenterTargets, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    b, k, h, w = targets.heatmap.shape
    return {
        name: torch.randn(b, channels, h, w, generator=generator)
        for name, channels in (("hm", k), ("wh", 2), ("reg", 2))
    }


def test_losses_against_loops() -> None:
    frames = [frame(random_boxes(7, (16, 24), seed=4).tolist(), [0, 1] * 3 + [1], (16, 24)),
              frame(random_boxes(2, (16, 24), seed=5).tolist(), None, (16, 24)),
              frame([], None, (16, 24))]  # fmt: skip
    targets = draw_targets(frames, (16, 24), 2, CPU)
    outputs = outputs_for(targets)
    losses = center_losses(outputs, targets)
    total, centers = 0.0, 0
    for p, y in zip(outputs["hm"].sigmoid().flatten().tolist(), targets.heatmap.flatten().tolist()):
        p = min(max(p, 1e-4), 1 - 1e-4)
        centers += y == 1
        total += (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
    assert float(losses["loss_heatmap"]) == pytest.approx(-total / centers, rel=1e-5)
    for name, key, values in (
        ("loss_size", "wh", targets.size),
        ("loss_offset", "reg", targets.offset),
    ):
        error = 0.0
        for b, instances in enumerate(frames):
            for n in range(len(instances)):
                y, x = divmod(int(targets.indices[b, n]), 24)
                for c in range(2):
                    error += abs(float(outputs[key][b, c, y, x]) - float(values[b, n, c]))
        assert float(losses[name]) == pytest.approx(error / (2 * 9 + 1e-4), rel=1e-5)


def test_losses_without_objects_are_finite() -> None:
    targets = draw_targets([frame([]), frame([])], (32, 48), 1, CPU)
    outputs = {key: value.requires_grad_() for key, value in outputs_for(targets).items()}
    losses = center_losses(outputs, targets)
    assert losses["loss_size"] == losses["loss_offset"] == 0
    probability = outputs["hm"].detach().sigmoid()
    expected = -(probability**2 * (1 - probability).log()).sum()
    assert losses["loss_heatmap"].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs.values())


def test_training_waits_for_no_device() -> None:
    """On a device that cannot tell the CPU a value, targets and losses are made all the same."""
    device = torch.device("meta")
    targets = draw_targets([frame([[3, 3, 9, 9], [5, 5, 30, 20]]), frame([])], (32, 48), 1, device)
    assert all(value.device == device for value in vars(targets).values())
    outputs = {name: value.to(device) for name, value in outputs_for(targets).items()}
    assert all(loss.shape == () for loss in center_losses(outputs, targets).values())


def test_extreme_logits_give_finite_losses() -> None:
    """Probabilities of 0 and 1 count as 1e-4 and 1 - 1e-4."""
    targets = draw_targets([frame([[3, 3, 9, 9]])], (16, 16), 1, CPU)
    error = (1 - 1e-4) ** 2 * -math.log(1e-4)
    others = float((1 - targets.heatmap).pow(4).sum())
    for value, expected in ((-1e4, error), (1e4, others * error)):
        logits = torch.full((1, 1, 16, 16), value, requires_grad=True)
        loss = heatmap_loss(logits, targets.heatmap)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-3)
        assert logits.grad.isfinite().all()


def test_the_gradients_are_those_of_the_losses() -> None:
    targets = draw_targets([frame([[1, 1, 5, 4], [3, 2, 7, 7]], None, (8, 8))], (8, 8), 1, CPU)
    targets = CenterTargets(
        *(t.double() if t.dtype == torch.float32 else t for t in vars(targets).values())
    )
    outputs = [value.double().requires_grad_() for value in outputs_for(targets).values()]

    def loss(hm: torch.Tensor, wh: torch.Tensor, reg: torch.Tensor) -> torch.Tensor:
        return sum(center_losses({"hm": hm, "wh": wh, "reg": reg}, targets).values())

    assert torch.autograd.gradcheck(loss, outputs)


def perfect(targets: CenterTargets) -> dict[str, torch.Tensor]:
    """Outputs that say just what the targets say."""
    b, _, h, w = targets.heatmap.shape
    outputs = {"hm": torch.logit(targets.heatmap.clamp(1e-6, 1 - 1e-3))}
    for key, values in (("wh", targets.size), ("reg", targets.offset)):
        maps = torch.zeros(b, 2, h * w)
        for index in range(b):
            own = targets.mask[index]
            maps[index][:, targets.indices[index][own]] = values[index][own].T
        outputs[key] = maps.view(b, 2, h, w)
    return outputs


@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_decoding_the_targets_gives_the_boxes_back(size: tuple[int, int]) -> None:
    boxes = torch.tensor([[2.0, 3, 8.5, 9], [20.25, 10, 25, 16], [12, 20, 17.5, 24]])
    targets = draw_targets(
        [frame(boxes.tolist(), [0, 1, 0], size), frame([], None, size)], size, 2, CPU
    )
    (found, scores, classes), (nothing, _, _) = decode(perfect(targets), score_floor=0.5)
    assert len(nothing) == 0 and nothing.shape == (0, 4)
    order = found[:, 1].argsort()
    torch.testing.assert_close(found[order], boxes[boxes[:, 1].argsort()])
    assert classes[order].tolist() == [0, 1, 0] and (scores > 0.99).all()


def test_decode_arguments() -> None:
    generator = torch.Generator().manual_seed(6)
    outputs = {
        "hm": torch.randn(2, 3, 20, 30, generator=generator) * 3,
        "wh": torch.randn(2, 2, 20, 30, generator=generator) * 4,  # some negative
        "reg": torch.rand(2, 2, 20, 30, generator=generator),
    }
    probability = outputs["hm"].sigmoid()
    for index, (boxes, scores, classes) in enumerate(
        decode(outputs, top_k=17, score_floor=0.2, soft_nms=False)
    ):
        peaks = []
        for k in range(3):
            for y in range(20):
                for x in range(30):
                    around = probability[index, k, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    value = float(probability[index, k, y, x])
                    if value == float(around.max()) and value > 0.2:
                        peaks.append((value, k, y, x))
        peaks = sorted(peaks, reverse=True)[:17]
        assert scores.tolist() == [p[0] for p in peaks] and classes.tolist() == [
            p[1] for p in peaks
        ]
        for box, (_, _, y, x) in zip(boxes.tolist(), peaks):
            w, h = (max(v, 0) for v in outputs["wh"][index, :, y, x].tolist())
            dx, dy = outputs["reg"][index, :, y, x].tolist()
            expected = [x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2]
            assert box == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        decode(outputs, top_k=0)
    for floor in (-0.1, 1.0, 30.0, math.nan):
        with pytest.raises(ValueError, match=r"score_floor must be in \[0, 1\), got"):
            decode(outputs, score_floor=floor)
    assert len(decode(outputs, top_k=10**9, soft_nms=False)[0][0]) < 20 * 30 * 3


def test_soft_nms_keeps_classes_apart() -> None:
    outputs = {
        "hm": torch.full((1, 2, 16, 16), -20.0),
        "wh": torch.full((1, 2, 16, 16), 6.0),
        "reg": torch.zeros(1, 2, 16, 16),
    }
    outputs["hm"][0, 0, 8, 8], outputs["hm"][0, 1, 8, 9] = 2.0, 3.0
    ((_, scores, classes),) = decode(outputs, score_floor=0.1)
    assert classes.tolist() == [1, 0]  # the better one first
    assert scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0]).sigmoid().tolist())
    outputs["hm"][0, 0, 8, 11] = 1.0  # the same class, 3 px away
    ((_, scores, classes),) = decode(outputs, score_floor=0.1)
    assert float(scores[classes == 0][1]) == pytest.approx(0.7311 * 0.73, abs=0.01)
