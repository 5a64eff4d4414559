"""The operators against torchvision, shapely, OpenCV, grid_sample and their own references."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import roi_align

from rsd2.ops import (
    batched_nms_rotated,
    box_iou_rotated,
    max_iou_rotated,
    ms_deform_attn,
    nms_rotated,
    roi_align_rotated,
    sparse_iou_rotated,
)
from rsd2.ops import box_iou_rotated_reference as iou_reference
from rsd2.ops.ms_deform_attn import reference_ms_deform_attn
from rsd2.ops.roi_align_rotated import reference_roi_align_rotated
from rsd2.structures import boxes_to_corners, corners_to_boxes, to_horizontal

from . import peers, seeded_boxes
from .harness import Case

SCENES = {"uniform": seeded_boxes.uniform, "dense": seeded_boxes.dense, "mix": seeded_boxes.mix}
LEVELS = [(128, 128), (64, 64), (32, 32), (16, 16)]
POSITIONS = sum(height * width for height, width in LEVELS)
HEADS, CHANNELS, POINTS = 8, 32, 4
THRESHOLD = 0.1


def cases() -> list[Case]:
    """List the cases of every available device."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kinds = (iou_cases, pair_cases, nms_cases, attention_cases, roi_cases, conversion_cases)
    return [case for device in devices for kind in kinds for case in kind(device)]


def iou_cases(device: str) -> list[Case]:
    """List the matrices of IoU.

    Args:
        device: device, ``cpu`` or ``cuda``.
    """
    sizes = [(scene, number, number) for number in (100, 1000, 5000) for scene in SCENES]
    # Few objects against all anchors of an image, as in training.
    sizes.append(("mix", 100, 20_000))
    return [_iou_case(device, *size) for size in sizes]


def _iou_case(device: str, scene: str, rows: int, columns: int) -> Case:
    boxes = functools.cache(lambda: _two_sets(scene, rows, columns, device))
    contenders = {"torchvision box_iou": lambda: peers.torchvision_iou(*boxes())}
    if device == "cpu":
        contenders["shapely + STRtree"] = lambda: peers.shapely_iou(*boxes())
    contenders["rsd2 reference, plain PyTorch"] = lambda: iou_reference.matrix(*boxes())
    # Importing the extension registers its operator; without a compiler it is not there.
    if importlib.util.find_spec("detectron2._C"):
        importlib.import_module("detectron2._C")
        contenders["Detectron2, compiled"] = lambda: torch.ops.detectron2.box_iou_rotated(*boxes())

    return Case(
        f"iou {scene} {rows}x{columns}" + _on(device),
        f"{rows} x {columns} boxes",
        lambda: box_iou_rotated(*boxes()),
        contenders,
        floor="write the matrix",
        floor_bytes=4 * rows * columns,
        device=device,
        is_slow=rows * columns > 10_000,
    )


def pair_cases(device: str) -> list[Case]:
    """List the forms of the IoU that keep no matrix.

    Args:
        device: device, ``cpu`` or ``cuda``.
    """
    found = []
    for rows, columns in ((1000, 1000), (5000, 5000)):
        boxes = functools.cache(
            lambda rows=rows, columns=columns: _two_sets("mix", rows, columns, device)
        )
        size = {"size": f"{rows} x {columns} boxes", "device": device, "is_slow": rows > 1000}

        def matrix_pairs(boxes=boxes) -> tuple[Tensor, ...]:
            iou = peers.torchvision_iou(*boxes())
            found = torch.nonzero(iou > THRESHOLD)
            return found[:, 0], found[:, 1], iou[found[:, 0], found[:, 1]]

        def matrix_maxima(boxes=boxes) -> tuple[Tensor, ...]:
            iou = peers.torchvision_iou(*boxes())
            return *iou.max(1), *iou.max(0)

        pair_peers = {"torchvision box_iou, then nonzero": matrix_pairs}
        if device == "cpu":
            pair_peers["shapely + STRtree"] = lambda boxes=boxes: peers.shapely_pairs(
                *boxes(), THRESHOLD
            )
        found.append(
            Case(
                f"sparse iou mix {rows}x{columns}" + _on(device),
                ours=lambda boxes=boxes: sparse_iou_rotated(*boxes(), THRESHOLD),
                peers=pair_peers,
                floor=f"pairs above {THRESHOLD}: the circle test of every pair",
                **size,
            )
        )
        found.append(
            Case(
                f"max iou mix {rows}x{columns}" + _on(device),
                ours=lambda boxes=boxes: max_iou_rotated(*boxes()),
                peers={"torchvision box_iou, then max": matrix_maxima},
                floor="the circle test of every pair",
                **size,
            )
        )

    return found


def nms_cases(device: str) -> list[Case]:
    """List suppression within one class and within fifteen.

    Args:
        device: device, ``cpu`` or ``cuda``.
    """
    return [
        _nms_case(device, scene, number, classes)
        for number in (1000, 10_000)
        for classes in (1, 15)
        for scene in ("clustered", "sparse")
    ]


def _nms_case(device: str, scene: str, number: int, classes: int) -> Case:
    # Clustered: a detector before suppression; sparse: nearly everything survives.
    per_object = {"clustered": 8, "sparse": 1.5}[scene]

    @functools.cache
    def given() -> tuple[Tensor, ...]:
        return tuple(x.to(device) for x in seeded_boxes.candidates(number, classes, per_object, 0))

    def ours() -> Tensor:
        boxes, scores, labels = given()
        if classes == 1:
            return nms_rotated(boxes, scores, THRESHOLD)
        return batched_nms_rotated(boxes, scores, labels, THRESHOLD)

    return Case(
        f"nms {scene} {number} boxes {classes} classes" + _on(device),
        f"{number} boxes, {classes} class{'es' if classes > 1 else ''}",
        ours,
        {"greedy over torchvision box_iou": lambda: peers.greedy_nms(*given(), THRESHOLD)},
        floor="circle tests of candidates and survivors",
        device=device,
        is_slow=number > 1000,
    )


def attention_cases(device: str) -> list[Case]:
    """List deformable attention of the encoder and of the decoder for a 1024-px image.

    Args:
        device: device, ``cpu`` or ``cuda``.
    """
    # Numbers that must be read or written at least; they bound every implementation.
    rows = POSITIONS * HEADS * CHANNELS
    found = []
    for part, queries in (("encoder", POSITIONS), ("decoder", 900)):
        given = functools.cache(lambda queries=queries: _attention_inputs(queries, device))
        size = {
            "size": f"{queries} queries, d {HEADS * CHANNELS}, {HEADS} heads, {len(LEVELS)} levels,"
            f" {POINTS} points",
            "device": device,
            "is_slow": queries > 1000,
        }
        samples = queries * HEADS * len(LEVELS) * POINTS
        out = queries * HEADS * CHANNELS
        contenders = {"grid_sample form": peers.grid_sample_attention, "rsd2 reference": _reference}

        found.append(
            Case(
                f"attention {part} forward" + _on(device),
                ours=lambda given=given: _forward(ms_deform_attn, given),
                peers={
                    name: lambda given=given, peer=peer: _forward(peer, given)
                    for name, peer in contenders.items()
                },
                floor="read values, points and weights, write the result; caches bound it first",
                floor_bytes=4 * (rows + 3 * samples + out),
                **size,
            )
        )
        found.append(
            Case(
                f"attention {part} forward and backward" + _on(device),
                ours=lambda given=given: _forward_backward(ms_deform_attn, given),
                peers={
                    "grid_sample form": lambda given=given: _forward_backward(
                        peers.grid_sample_attention, given
                    )
                },
                floor="the same twice, and the gradients; caches bound it first",
                floor_bytes=4 * (3 * rows + 9 * samples + 2 * out),
                **size,
            )
        )

    return found


def _attention_inputs(queries: int, device: str) -> tuple[Tensor, ...]:
    """Make values, locations anywhere, weights, and the gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    cells = (1, queries, HEADS, len(LEVELS), POINTS)
    value = torch.randn(1, POSITIONS, HEADS, CHANNELS, generator=generator)
    locations = torch.rand(*cells, 2, generator=generator)
    weights = torch.rand(*cells, generator=generator).flatten(3).softmax(-1).view(cells)
    grad = torch.randn(1, queries, HEADS * CHANNELS, generator=generator)
    tensors = [x.to(device).requires_grad_() for x in (value, locations, weights)]
    return *tensors, grad.to(device)


def _forward(attention: Callable, given: Callable[[], tuple[Tensor, ...]]) -> Tensor:
    value, locations, weights, _ = given()
    with torch.no_grad():
        return attention(value, LEVELS, locations, weights)


def _forward_backward(
    attention: Callable, given: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    value, locations, weights, grad = given()
    out = attention(value, LEVELS, locations, weights)
    return out.detach(), *torch.autograd.grad(out, (value, locations, weights), grad)


def _reference(value: Tensor, levels: list, locations: Tensor, weights: Tensor) -> Tensor:
    flat = [number for pair in levels for number in pair]
    return reference_ms_deform_attn(value, flat, locations, weights)


def roi_cases(device: str) -> list[Case]:
    """List rotated RoIAlign of a thousand regions.

    Args:
        device: device, ``cpu`` or ``cuda``.
    """

    given = functools.cache(lambda: _roi_inputs(device))

    def pooled(features: Tensor, turned: bool) -> Tensor:
        return roi_align_rotated(features, given()[1 if turned else 2], 7, 0.25, 2)

    def theirs(features: Tensor) -> Tensor:
        return roi_align(features, given()[3], 7, 0.25, 2, aligned=True)

    def gradient(pool: Callable[[Tensor], Tensor]) -> Tensor:
        features = given()[0].detach().requires_grad_()
        return torch.autograd.grad(pool(features), features, given()[4])[0]

    # Equal boxes on both sides, so unturned ones: torchvision's regions cannot turn.
    size = {"size": "1000 regions, 7 x 7 bins, ratio 2, 2 x 256 x 128 x 128", "device": device}
    note = "torchvision's regions do not turn: both pool the same unturned boxes"
    numbers = 4 * (2 * 256 * 128 * 128 + 1000 * 256 * 49)

    return [
        Case(
            "roi align forward" + _on(device),
            ours=lambda: pooled(given()[0], False),
            peers={
                "torchvision roi_align (unrotated)": lambda: theirs(given()[0]),
                "rsd2 reference": lambda: reference_roi_align_rotated(
                    given()[0], given()[2], (7, 7), 0.25, 2
                ),
            },
            note=note,
            floor="read the maps, write the bins; the gathers bound it first",
            floor_bytes=numbers,
            **size,
        ),
        Case(
            "roi align forward and backward" + _on(device),
            ours=lambda: gradient(lambda features: pooled(features, False)),
            peers={"torchvision roi_align (unrotated)": lambda: gradient(theirs)},
            note=note,
            floor="the same twice; the scatter bounds it first",
            floor_bytes=2 * numbers,
            is_slow=True,
            **size,
        ),
        _turned_roi_case(device, lambda: pooled(given()[0], True), given, size),
    ]


def _roi_inputs(device: str) -> tuple[Tensor, ...]:
    """Make maps, turned regions, the same unturned, these as torchvision's, and a gradient."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 256, 128, 128, generator=generator)
    boxes = seeded_boxes.uniform(1000, 0)
    boxes[:, :2] /= 2  # the maps cover 512 px at a stride of 4
    image = (torch.arange(1000) % 2).float()[:, None]
    flat = torch.cat([boxes[:, :4], torch.zeros(1000, 1)], dim=1)
    tensors = (
        features,
        torch.cat([image, boxes], dim=1),
        torch.cat([image, flat], dim=1),
        torch.cat([image, to_horizontal(flat)], dim=1),
        torch.randn(1000, 256, 7, 7, generator=generator),
    )
    return tuple(tensor.to(device) for tensor in tensors)


def _turned_roi_case(
    device: str, ours: Callable, given: Callable[[], tuple[Tensor, ...]], size: dict
) -> Case:
    contenders = {}
    if importlib.util.find_spec("detectron2._C"):
        importlib.import_module("detectron2._C")
        contenders["Detectron2, compiled"] = lambda: torch.ops.detectron2.roi_align_rotated_forward(
            *given()[:2], 0.25, 7, 7, 2
        )

    return Case(
        "roi align rotated forward" + _on(device),
        ours=ours,
        peers=contenders,
        note="" if contenders else "Detectron2's extension, the only peer, is not compiled here",
        **size,
    )


def conversion_cases(device: str) -> list[Case]:
    """List the conversion of polygons to rectangles of the smallest area.

    Args:
        device: device, ``cpu`` or ``cuda``; there is nothing for the latter.
    """
    if device != "cpu":
        return []

    @functools.cache
    def polygons() -> Tensor:
        corners = boxes_to_corners(seeded_boxes.mix(100_000, 0))
        # Noise makes the polygons quadrilaterals, which no rectangle fits exactly.
        noise = torch.randn(corners.shape, generator=torch.Generator().manual_seed(0))
        return corners + 0.5 * noise

    return [
        Case(
            "polygons to smallest rectangles",
            "100000 quadrilaterals",
            lambda: corners_to_boxes(polygons()),
            {"cv2.minAreaRect, a loop": lambda: peers.smallest_rectangles(polygons().numpy())},
            floor="read the corners, write the boxes",
            floor_bytes=4 * 13 * 100_000,
        )
    ]


def _two_sets(scene: str, rows: int, columns: int, device: str) -> tuple[Tensor, Tensor]:
    return SCENES[scene](rows, 0).to(device), SCENES[scene](columns, 1).to(device)


def _on(device: str) -> str:
    return "" if device == "cpu" else f" on {device}"
