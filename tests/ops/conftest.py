"""An exact judge of rotated IoU and the pairs that break other implementations of it.

The judge takes the floats of a box as rational numbers, its sine and cosine to 2^-180, and clips in
``fractions.Fraction``: no rounding from there on. Shapely judges the mass of pairs, where float64
corners are good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import shapely
import torch

from rsd2.ops.extension import is_compiled

PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
BITS = 180
REGIMES = (
    "jitter 1e-4",
    "jitter 1e-3",
    "jitter 1e-2",
    "jitter 1",
    "turned by 180",
    "sides swapped, turned by 90",
    "one thin",
    "both thin",
    "contained, sharing two edges",
    "coordinates + 1e5",
    "tiny sides",
    "random",
    "random in 4000 px",
)


def _rounded(value: Fraction) -> Fraction:
    return Fraction(round(value * (1 << BITS)), 1 << BITS)


def _sincos(degrees: float) -> tuple[Fraction, Fraction]:
    exact = Fraction(degrees)
    turns = round(exact / 90)
    radians = _rounded((exact - 90 * turns) * PI / 180)
    term, cos, sin, k = Fraction(1), Fraction(0), Fraction(0), 0
    while abs(term) > Fraction(1, 1 << BITS):
        sign = -1 if k % 4 >= 2 else 1
        if k % 2:
            sin += sign * term
        else:
            cos += sign * term
        k += 1
        term = _rounded(term * radians / k)
    for _ in range(turns % 4):
        sin, cos = cos, -sin
    return sin, cos


def exact_corners(box) -> list[tuple[Fraction, Fraction]]:
    """Corners of one box of floats, as rationals."""
    cx, cy, w, h = (Fraction(float(value)) for value in box[:4])
    sin, cos = _sincos(float(box[4]))
    local = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return [(cx + cos * x + sin * y, cy - sin * x + cos * y) for x, y in local]


def exact_area(points) -> Fraction:
    """Area of a polygon of rationals."""
    pairs = zip(points, points[1:] + points[:1])
    return abs(sum(p[0] * q[1] - q[0] * p[1] for p, q in pairs)) / 2


def exact_clip(subject, window):
    """Sutherland-Hodgman: any polygon within a convex one that runs clockwise on screen."""
    for a, b in zip(window, window[1:] + window[:1]):
        sides = [(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in subject]
        clipped = []
        for i, (p, side) in enumerate(zip(subject, sides)):
            before, side_before = subject[i - 1], sides[i - 1]
            if (side >= 0) != (side_before >= 0):
                t = side_before / (side_before - side)
                x = before[0] + t * (p[0] - before[0])
                clipped.append((x, before[1] + t * (p[1] - before[1])))
            if side >= 0:
                clipped.append(p)
        subject = clipped
        if not subject:
            break
    return subject


def exact_iou_of(box, other) -> float:
    """IoU of a box and another box (5 numbers) or a polygon (V x 2 numbers)."""
    window = exact_corners(box)
    if np.ndim(other) == 1:
        subject = exact_corners(other)
    else:
        subject = [(Fraction(float(x)), Fraction(float(y))) for x, y in other]
    inter = exact_area(exact_clip(subject, window))
    return float(inter / (exact_area(window) + exact_area(subject) - inter))


@pytest.fixture(scope="session")
def exact_iou():
    """Function (box, box or polygon) -> IoU, exact to the last bit of a float64."""
    return exact_iou_of


def shapely_ious(boxes1: torch.Tensor, boxes2: torch.Tensor) -> np.ndarray:
    """IoU of pairs by GEOS, centre-shifted; not to be trusted beyond 1e-9, nor on near-copies."""
    one, two = boxes1.double().numpy().copy(), boxes2.double().numpy().copy()
    two[:, :2] -= one[:, :2]
    one[:, :2] = 0
    polygons = []
    for boxes in (one, two):
        radians = np.deg2rad(boxes[:, 4])
        cos, sin = np.cos(radians)[:, None], np.sin(radians)[:, None]
        x = boxes[:, 2:3] * np.array([-0.5, 0.5, 0.5, -0.5])
        y = boxes[:, 3:4] * np.array([-0.5, -0.5, 0.5, 0.5])
        points = [boxes[:, 0:1] + cos * x + sin * y, boxes[:, 1:2] - sin * x + cos * y]
        polygons.append(shapely.polygons(np.stack(points, axis=-1)))
    inter = shapely.area(shapely.intersection(*polygons))
    return inter / (shapely.area(polygons[0]) + shapely.area(polygons[1]) - inter)


def errors_of(ious: torch.Tensor, boxes1, boxes2, tolerance: float) -> np.ndarray:
    """|IoU - truth| of pairs: shapely's word where it agrees, exact rationals where it does not."""
    ours = ious.double().numpy()
    errors = np.abs(ours - shapely_ious(boxes1, boxes2))
    for i in np.flatnonzero(~(errors <= tolerance)):
        errors[i] = abs(ours[i] - exact_iou_of(boxes1[i].tolist(), boxes2[i].tolist()))
    return errors


def _around(boxes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other boxes of the same size range whose centres lie where they probably overlap."""
    other = boxes[torch.randperm(len(boxes), generator=generator)].clone()
    reach = (boxes[:, 2:4].amax(1, keepdim=True) + other[:, 2:4].amin(1, keepdim=True)) / 2
    noise = torch.rand(len(boxes), 2, generator=generator, dtype=torch.float64) * 2 - 1
    other[:, :2] = boxes[:, :2] + reach * noise
    return other


def regime_pairs_of(
    regime: str, num_pairs: int, dtype: torch.dtype, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (P, 5), (P, 5) of a regime of :data:`REGIMES`, rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(seed + 1000 * REGIMES.index(regime))

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def jittered(boxes: torch.Tensor, sigma: float) -> torch.Tensor:
        noise = torch.randn(boxes.shape, generator=generator, dtype=torch.float64)
        result = boxes + sigma * noise
        result[:, 2:4] = torch.where(result[:, 2:4] > 0, result[:, 2:4], boxes[:, 2:4])
        return result

    size = 4000.0 if "4000" in regime else 1000.0
    sides = 4 * 75 ** rand(num_pairs, 2)
    one = torch.cat([size * rand(num_pairs, 2), sides, 360 * rand(num_pairs, 1) - 180], dim=1)
    if regime.startswith("jitter"):
        two = jittered(one.to(dtype).double(), float(regime.split()[1]))
    elif regime == "turned by 180":
        two = one.to(dtype).double() + torch.tensor([0, 0, 0, 0, 180.0])
    elif regime.startswith("sides swapped"):
        two = one.to(dtype).double()[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, 90.0])
    elif regime == "one thin":
        two = _around(one, generator)
        one[:, 3] = 10 ** (-4 * rand(num_pairs))
    elif regime == "both thin":
        one[:, 3] = 10 ** (-4 * rand(num_pairs))
        two = jittered(one.to(dtype).double(), 1e-4)
    elif regime.startswith("contained"):
        one[:, 4] = torch.where(rand(num_pairs) < 0.3, 0.0, one[:, 4])
        shrink = rand(num_pairs, 2)
        radians = torch.deg2rad(one[:, 4])
        x, y = (one[:, 2:4] * (1 - shrink) / 2).unbind(1)
        shift = torch.stack(
            [radians.cos() * x + radians.sin() * y, radians.cos() * y - radians.sin() * x], dim=1
        )
        two = torch.cat([one[:, :2] + shift, one[:, 2:4] * shrink.clamp(min=0.01), one[:, 4:]], 1)
    elif regime == "tiny sides":
        one[:, 2:4] = 1e-3 * 10 ** rand(num_pairs, 2)
        one[:, :2] *= torch.where(rand(num_pairs, 1) < 0.5, 1.0, 1e-3)
        two = _around(one, generator)
    else:
        two = _around(one, generator)
        if regime == "coordinates + 1e5":
            one[:, :2] += 1e5
            two[:, :2] += 1e5
    return one.to(dtype), two.to(dtype)


@pytest.fixture(params=REGIMES)
def regime(request) -> str:
    """Name of a fuzz regime."""
    return request.param


@pytest.fixture(scope="session")
def regime_pairs():
    """Function (regime, number, dtype, seed) -> two (P, 5) sets of boxes."""
    return regime_pairs_of


@pytest.fixture(scope="session")
def iou_errors():
    """Function (ious, boxes1, boxes2, tolerance) -> errors against the truth."""
    return errors_of


@pytest.fixture
def put_in_place():
    """Function (operator -> implementation): what the CPU runs until the end of the test."""
    library = torch.library.Library("rsd2", "IMPL")

    def put(functions: dict[str, Callable]) -> None:
        for name, function in functions.items():
            library.impl(name, function, "CPU", allow_override=True)

    yield put
    library._destroy()


@pytest.fixture(params=["kernel", "reference"])
def implementation(request, put_in_place):
    """Run a test twice: what holds for one implementation has to hold for the other.

    ``REFERENCES`` of the test's module holds the reference of each of its operators.
    """
    references = request.module.REFERENCES
    if request.param == "reference":
        put_in_place(references)
    elif not all(is_compiled(name, "CPU") for name in references):
        pytest.skip("rsd2 was installed without its compiled library")
    return request.param
