import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rsd2 import structures as S
from rsd2.testing import random_rotated_boxes

SPECIAL_ANGLES = [k * 45.0 for k in range(-17, 18)] + [3600.0, -3600.0, 1e6]
NEXT_TO_BOUNDS = [
    side * np.nextafter(np.float32(bound), np.float32(toward))
    for bound in (45, 90, 135, 180)
    for toward in (0, 1000)
    for side in (-1, 1)
]
angles = st.one_of(
    st.sampled_from(SPECIAL_ANGLES),
    st.sampled_from([float(a) for a in NEXT_TO_BOUNDS]),
    st.sampled_from([-90 - 1e-7, -45 - 1e-7, -1e-30, 1e-30, -1e-12, 89.9999999999]),
    st.floats(-720, 720),
)
sides = st.one_of(st.sampled_from([0.0, 1.0, 10.0]), st.floats(1e-3, 4000))
dtypes = st.sampled_from([torch.float32, torch.float64])
ranges = st.sampled_from([(360.0, None), (180.0, None), (90.0, None), (180.0, 0.0)])


@st.composite
def boxes(draw):
    w = draw(sides)
    h = w if draw(st.booleans()) else draw(sides)
    center = draw(st.tuples(st.floats(-4000, 4000), st.floats(-4000, 4000)))
    return torch.tensor([*center, w, h, draw(angles)], dtype=draw(dtypes))


def corner_distance(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest distance from a corner of either set (4, 2) to the nearest of the other."""
    distances = torch.cdist(one.double(), two.double())
    return max(distances.amin(0).max().item(), distances.amin(1).max().item())


def tolerance(box: torch.Tensor) -> float:
    # An angle is rounded to the spacing of the largest number that it passed through.
    size = box[:4].abs().sum().item() + 1
    turn = math.radians(max(abs(box[4].item()), 360.0))
    return 8 * size * torch.finfo(box.dtype).eps * max(1.0, turn)


def assert_same_rectangle(one: torch.Tensor, two: torch.Tensor) -> None:
    distance = corner_distance(S.boxes_to_corners(one), S.boxes_to_corners(two))
    assert distance <= tolerance(one), (one, two, distance)


class TestWrapAngle:
    @given(
        angles, dtypes, st.sampled_from([(360.0, None), (180.0, None), (90.0, None), (180.0, 0.0)])
    )
    @example(-90 - 1e-7, torch.float64, (180.0, None))
    @example(-1e-30, torch.float32, (180.0, 0.0))
    def test_range_is_strict_and_wrapping_is_idempotent(self, angle, dtype, range_):
        period, start = range_
        wrapped = S.wrap_angle(torch.tensor(angle, dtype=dtype), period, start)
        start = -period / 2 if start is None else start
        assert start <= wrapped.item() < start + period
        assert torch.equal(S.wrap_angle(wrapped, period, start), wrapped)

    def test_values_in_range_keep_their_bits(self):
        values = torch.tensor([-90.0, -1e-30, 0.0, 1e-30, 89.99999, 45.000004])
        assert torch.equal(S.wrap_angle(values), values)

    def test_other_units_and_bad_numbers(self):
        assert S.wrap_angle(torch.tensor(1.0 + math.pi), math.pi).item() == pytest.approx(1.0)
        assert S.wrap_angle(torch.tensor([math.nan, math.inf])).isnan().all()
        with pytest.raises(ValueError, match="period"):
            S.wrap_angle(torch.zeros(1), 0.0)


class TestCanonicalize:
    @settings(max_examples=300)
    @given(boxes())
    def test_ranges_idempotence_and_same_rectangle(self, box):
        canonical = S.canonicalize(box)
        w, h, angle = canonical[2:].tolist()
        assert w >= h
        assert (-45 <= angle < 45) if w == h else (-90 <= angle < 90)
        assert torch.equal(S.canonicalize(canonical), canonical)
        assert_same_rectangle(box, canonical)

    @given(boxes(), st.integers(-3, 3))
    def test_other_descriptions_agree(self, box, quarter_turns):
        box = box.double()
        turned = box.clone()
        turned[4] += 90 * quarter_turns
        if quarter_turns % 2:
            turned[2], turned[3] = box[3], box[2]
        assert_same_rectangle(S.canonicalize(box), S.canonicalize(turned))

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ([0, 0, 4, 2, 90], [0, 0, 4, 2, -90]),
            ([0, 0, 2, 4, 0], [0, 0, 4, 2, -90]),
            ([0, 0, 2, 4, -90], [0, 0, 4, 2, 0]),
            ([0, 0, 2, 4, 30], [0, 0, 4, 2, -60]),
            ([0, 0, 4, 2, -270], [0, 0, 4, 2, -90]),
            ([0, 0, 3, 3, 45], [0, 0, 3, 3, -45]),
            ([0, 0, 3, 3, 90], [0, 0, 3, 3, 0]),
        ],
    )
    def test_by_hand(self, box, expected):
        assert S.canonicalize(torch.tensor(box)).tolist() == expected

    def test_just_outside_a_bound_never_becomes_plus_90(self):
        for dtype in (torch.float32, torch.float64):
            beyond = torch.nextafter(
                torch.tensor(-90.0, dtype=dtype), torch.tensor(-91.0).to(dtype)
            )
            box = torch.tensor([0, 0, 4, 2, 0.0], dtype=dtype)
            box[4] = beyond
            angle = S.canonicalize(box)[4].item()
            assert 89.9 < angle < 90
            box = torch.tensor([0, 0, 2, 4, -1e-12], dtype=dtype)
            assert S.canonicalize(box)[4].item() < 90

    def test_any_leading_shape_empty_integers_and_nan(self):
        assert S.canonicalize(torch.zeros(0, 5)).shape == (0, 5)
        assert S.canonicalize(torch.ones(2, 3, 5)).shape == (2, 3, 5)
        assert S.canonicalize(torch.tensor([1, 2, 3, 4, 5])).dtype == torch.float32
        assert S.canonicalize(torch.full((5,), math.nan)).isnan().all()
        with pytest.raises(ValueError, match=r"\(3, 4\)"):
            S.canonicalize(torch.zeros(3, 4))

    def test_gradient_passes(self):
        box = torch.tensor([1.0, 2, 3, 4, 100], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(S.canonicalize, box)


class TestCorners:
    def test_by_hand(self):
        flat = S.boxes_to_corners(torch.tensor([10.0, 20, 4, 2, 0]))
        assert flat.tolist() == [[8, 19], [12, 19], [12, 21], [8, 21]]
        upright = S.boxes_to_corners(torch.tensor([10.0, 20, 4, 2, 90]))
        # Counter-clockwise on screen: what was on the left is now at the bottom.
        assert upright.tolist() == [[9, 22], [9, 18], [11, 18], [11, 22]]

    def test_detectron2_draws_the_same_corners(self):
        pytest.importorskip("detectron2")
        from detectron2.structures import BoxMode

        box = torch.tensor([[10.0, 20, 8, 2, 30], [5, 5, 3, 9, -100]], dtype=torch.float64)
        corners = S.boxes_to_corners(box)
        low, high = corners.amin(1), corners.amax(1)
        theirs = BoxMode.convert(box, BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
        torch.testing.assert_close(torch.cat([low, high], dim=1), theirs)
        torch.testing.assert_close(S.to_horizontal(box), theirs)

    @settings(max_examples=300)
    @given(boxes())
    def test_round_trip(self, box):
        back = S.corners_to_boxes(S.boxes_to_corners(box))
        assert corner_distance(S.boxes_to_corners(box), S.boxes_to_corners(back)) <= 4 * tolerance(
            box
        )

    @settings(max_examples=200)
    @given(boxes(), st.integers(0, 3), st.booleans())
    def test_first_vertex_is_kept(self, box, start, reverse):
        corners = S.boxes_to_corners(box)
        given_order = corners.roll(-start, 0)
        if reverse:
            given_order = given_order[[0, 3, 2, 1]]
        back = S.corners_to_boxes(given_order, keep_first_vertex=True)
        assert -180 <= back[4] < 180
        again = S.boxes_to_corners(back)
        assert (again[0] - given_order[0]).norm() <= 4 * tolerance(box)
        if box[2:4].min() < 16 * tolerance(box):
            return  # the two ends of a vanishing side cannot be told apart
        expected = given_order[[0, 3, 2, 1]] if reverse else given_order
        assert (again - expected).norm(dim=-1).max() <= 4 * tolerance(box)

    def test_minimum_area_equals_opencv_and_covers_the_points(self):
        generator = np.random.default_rng(0)
        quads = generator.uniform(0, 100, (300, 4, 2))
        ours = S.corners_to_boxes(torch.from_numpy(quads))
        for quad, box in zip(quads, ours):
            (_, (w, h), _) = cv2.minAreaRect(quad.astype(np.float32))
            assert (box[2] * box[3]).item() == pytest.approx(w * h, rel=2e-4)
            grown = box.clone()
            grown[2:4] += 1e-9
            corners = S.boxes_to_corners(grown)
            edges = corners.roll(-1, 0) - corners
            to_points = torch.from_numpy(quad)[None] - corners[:, None]
            cross = edges[:, None, 0] * to_points[..., 1] - edges[:, None, 1] * to_points[..., 0]
            assert (cross >= 0).all()

    def test_order_of_the_points_does_not_matter(self):
        quads = torch.rand(50, 4, 2, dtype=torch.float64) * 100
        reference = S.corners_to_boxes(quads)
        for order in ([1, 2, 3, 0], [3, 2, 1, 0], [0, 2, 1, 3]):
            other = S.corners_to_boxes(quads[:, order])
            torch.testing.assert_close(other[:, 2:4], reference[:, 2:4], rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("keep", [False, True])
    def test_many_quadrilaterals_of_any_shape_come_back_in_their_places(self, keep):
        generator = torch.Generator().manual_seed(0)
        quads = torch.rand(3, 1500, 4, 2, generator=generator, dtype=torch.float64) * 100
        boxes = S.corners_to_boxes(quads, keep)
        assert boxes.shape == (3, 1500, 5)
        for i, j in ((0, 0), (1, 547), (1, 548), (1, 549), (2, 1499)):  # 2048 is (1, 548)
            torch.testing.assert_close(boxes[i, j], S.corners_to_boxes(quads[i, j], keep))

    def test_degenerate_input_is_defined(self):
        same = S.corners_to_boxes(torch.full((4, 2), 7.0))
        assert same[:4].tolist() == [7, 7, 0, 0] and same[4].isfinite()
        line = S.corners_to_boxes(torch.tensor([[0.0, 0], [3, 4], [6, 8], [3, 4]]))
        torch.testing.assert_close(line[:4], torch.tensor([3.0, 4, 10, 0]), atol=1e-5, rtol=0)
        assert line[4].item() == pytest.approx(-math.degrees(math.atan2(4, 3)), abs=1e-4)
        for bad in (math.nan, math.inf):
            corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, bad]])
            for keep in (False, True):
                assert S.corners_to_boxes(corners, keep_first_vertex=keep).isnan().all()
        for keep in (False, True):
            assert S.corners_to_boxes(torch.zeros(0, 4, 2), keep).shape == (0, 5)
        with pytest.raises(ValueError, match="corners"):
            S.corners_to_boxes(torch.zeros(3, 8))

    def test_far_from_the_origin_keeps_digits(self):
        box = torch.tensor([1e6, 1e6, 30, 20, 17.0], dtype=torch.float64)
        back = S.corners_to_boxes(S.boxes_to_corners(box))
        torch.testing.assert_close(back, box, atol=1e-7, rtol=0)


class TestOpenMMLab:
    @pytest.mark.parametrize("version", ["le90", "le135", "oc"])
    @settings(max_examples=200)
    @given(box=boxes())
    def test_round_trip_and_range(self, version, box):
        theirs = S.to_openmmlab(box, version)
        w, h, theta = theirs[2:]
        pi = torch.tensor(math.pi, dtype=theirs.dtype)
        if version == "le90":
            assert w >= h and -pi / 2 <= theta < pi / 2
        elif version == "le135":
            assert w >= h and -pi / 4 <= theta < torch.tensor(3 * math.pi / 4).to(theirs.dtype)
        else:
            assert 0 < theta <= pi / 2
        assert_same_rectangle(box, S.from_openmmlab(theirs, version))

    @pytest.mark.parametrize(
        ("version", "ours", "theirs"),
        [
            ("le90", [0, 0, 4, 2, 30], [4, 2, -30]),
            ("le90", [0, 0, 4, 2, -90], [4, 2, -90]),
            ("le135", [0, 0, 4, 2, 45], [4, 2, -45]),
            ("le135", [0, 0, 4, 2, 60], [4, 2, 120]),
            ("le135", [0, 0, 4, 2, -60], [4, 2, 60]),
            ("oc", [0, 0, 4, 2, -30], [4, 2, 30]),
            ("oc", [0, 0, 4, 2, 30], [2, 4, 60]),
            ("oc", [0, 0, 4, 2, 0], [2, 4, 90]),
            ("oc", [0, 0, 4, 2, -90], [4, 2, 90]),
        ],
    )
    def test_by_hand(self, version, ours, theirs):
        ours = torch.tensor(ours, dtype=torch.float64)
        expected = torch.tensor([*theirs[:2], math.radians(theirs[2])], dtype=torch.float64)
        result = S.to_openmmlab(ours, version)
        torch.testing.assert_close(result[2:], expected)
        torch.testing.assert_close(S.from_openmmlab(result, version), ours)

    def test_an_angle_that_rounds_to_zero_stays_in_the_range(self):
        box = torch.tensor([0, 0, 4, 2, -1.4e-45])
        assert box[4] < 0, "the least number of float32"
        result = S.to_openmmlab(box, "oc")
        torch.testing.assert_close(result, torch.tensor([0, 0, 2, 4, math.pi / 2]))

    def test_angle_is_minus_degrees(self):
        box = torch.tensor([0, 0, 4, 2, 0.5], dtype=torch.float64)
        assert S.from_openmmlab(box)[4].item() == pytest.approx(-0.5 * 180 / math.pi)

    def test_unknown_version(self):
        with pytest.raises(ValueError, match="le99"):
            S.from_openmmlab(torch.zeros(5), "le99")
        with pytest.raises(ValueError, match="le99"):
            S.to_openmmlab(torch.zeros(5), "le99")


class TestOpenCV:
    def test_installed_opencv(self):
        for box in random_rotated_boxes(200, 200.0, 10.0, 80.0, dtype=torch.float64):
            points = S.boxes_to_corners(box).numpy().astype(np.float32)
            center, size, angle = cv2.minAreaRect(points)
            ours = S.from_opencv(torch.tensor([*center, *size, angle], dtype=torch.float64))
            distance = corner_distance(S.boxes_to_corners(box), S.boxes_to_corners(ours))
            assert distance < 0.02

    @pytest.mark.parametrize(
        "rect",
        [
            [5, 6, 4, 2, 30],  # any angle, clockwise on screen
            [5, 6, 2, 4, -60],  # before 4.5.1: [-90, 0)
            [5, 6, 4, 2, -150],
            [5, 6, 2, 4, 120],
        ],
    )
    def test_every_version_describes_one_rectangle(self, rect):
        expected = torch.tensor([5.0, 6, 4, 2, -30])
        torch.testing.assert_close(S.from_opencv(torch.tensor(rect)), expected)

    @pytest.mark.parametrize("rect", [[5, 6, 4, 2, 90], [5, 6, 2, 4, 0], [5, 6, 4, 2, -90]])
    def test_upright_rectangle_of_4x_versions(self, rect):
        expected = torch.tensor([5.0, 6, 4, 2, -90])
        torch.testing.assert_close(S.from_opencv(torch.tensor(rect)), expected)


class TestHorizontal:
    @given(st.floats(-1000, 1000), st.floats(-1000, 1000), sides, sides)
    def test_round_trip(self, x, y, width, height):
        xyxy = torch.tensor([x, y, x + width, y + height], dtype=torch.float64)
        box = S.from_horizontal(xyxy)
        assert box[2] >= box[3] and box[4] in (0, -90)
        torch.testing.assert_close(S.to_horizontal(box), xyxy, rtol=0, atol=1e-9)

    @given(boxes())
    def test_encloses_tightly(self, box):
        corners = S.boxes_to_corners(box)
        expected = torch.cat([corners.amin(0), corners.amax(0)])
        atol = tolerance(box)
        torch.testing.assert_close(S.to_horizontal(box), expected, rtol=0, atol=atol)

    def test_bad_shape(self):
        with pytest.raises(ValueError, match="xyxy"):
            S.from_horizontal(torch.zeros(5))
