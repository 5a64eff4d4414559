"""Layout of a tiny scene: places of people, boats and things, and their drawing.

Coordinates are image pixels throughout. Shapes: H and W image height and width, P points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from rsd2.synthetic.canvas import CIRCLE, Canvas, Pen, shade
from rsd2.synthetic.textures import LAND, WATER, Ground

from . import figures as figures

DENSE_COUNT = 200
"""An image with more annotations is dense; TinyPerson leaves such images out."""

_LEAST_VISIBLE = 0.5
_FOAM = (214, 222, 224)
_BRIGHT = ((226, 60, 50), (240, 150, 40), (240, 220, 70), (60, 110, 200), (240, 240, 236))
_UP = -math.pi / 2


@dataclass(frozen=True)
class _Kind:
    """A way to stand: its drawer, aspect (across / along), and the spread of the heading."""

    draw: Callable[[Random], list[figures.Part]]
    aspect: tuple[float, float]
    spread: float
    relative_size: float
    casts: float = 0.0


_KINDS = {
    "standing": _Kind(figures.standing_person, (0.36, 0.5), 0.07, 1.0, 0.8),
    "sitting": _Kind(figures.sitting_person, (0.75, 1.0), 0.1, 0.85, 0.5),
    "lying": _Kind(figures.lying_person, (0.3, 0.42), math.pi, 1.0),
    "swimming": _Kind(figures.swimming_person, (0.85, 1.2), 0.25, 0.8),
    "boat": _Kind(figures.boat, (0.28, 0.45), math.pi, 1.7),
}


@dataclass(frozen=True)
class Figure:
    """A figure with its place and annotation.

    Args:
        kind: key of the way it stands.
        pen: pen at its place.
        parts: polygons of the figure.
        box: (4,) float64 x0, y0, x1, y1, cut at the border of the image.
        category: category of the annotation.
        uncertain: the figure can hardly be recognised.
        veil: colour and share mixed into the figure.
        ignore: this is the region of a crowd instead of a figure; ``parts`` is empty.
    """

    kind: str
    pen: Pen
    parts: list[figures.Part]
    box: np.ndarray
    category: str
    uncertain: bool = False
    veil: tuple | None = None
    ignore: bool = False


class TinyLayout:
    """A scene while it is laid out.

    Args:
        rng: source of randomness.
        canvas: canvas to draw on.
        ground: ground of the scene, water all over.
        object_size: least and greatest square root of an object's area, pixels.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        canvas: Canvas,
        ground: Ground,
        object_size: tuple[float, float],
    ):
        self.rng, self.canvas, self.ground = rng, canvas, ground
        self.height, self.width = ground.zone.shape
        self._limits = object_size

        low, high = object_size
        # Size of the people in the middle of the image, which stands for the camera's height.
        self._base = float(low * (high / low) ** rng.uniform(0.34, 0.9))
        self._slope = rng.uniform(0.1, 0.5)

        self._taken = np.zeros((self.height, self.width), dtype=np.uint8)
        self._figures: list[Figure] = []
        self._regions: list[Figure] = []
        self._things: list[Callable[[], None]] = []

    def shrink(self) -> None:
        """Raise the camera until more than DENSE_COUNT people have room."""
        # A person of this size takes about nine times its area, with the space around it.
        room = math.sqrt(self.height * self.width / (2.2 * DENSE_COUNT)) / 3
        self._base = max(1.3 * self._limits[0], min(self._base, room))

    def lay_beach(self) -> None:
        """Cover one side of the water with sand, with a wet strip and foam between them."""
        rng = self.rng
        angle, reach = rng.uniform(-math.pi, math.pi), math.hypot(self.height, self.width)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        # The shore passes near the middle, so that there is both water and sand.
        middle = np.array([self.width, self.height]) / 2 + across * rng.uniform(-0.25, 0.2) * min(
            self.height, self.width
        )

        steps = np.linspace(-reach, reach, 90)
        phases, rough = rng.uniform(0, 2 * math.pi, 3), rng.uniform(2, 7)
        wiggle = np.sin(steps / 60 + phases[0]) + 0.5 * np.sin(steps / 21 + phases[1])
        wiggle += 0.25 * np.sin(steps / 8 + phases[2])
        edge = middle + steps[:, None] * along + (rough * wiggle)[:, None] * across

        # Soil first, then sand from a little further up: what stays of the soil is the wet strip.
        far = edge[[-1, 0]] + across * 2 * reach
        self.ground.fill(np.concatenate([edge, far]), "soil")
        wet = rng.uniform(3, 9)
        self.ground.fill(np.concatenate([edge + across * wet, far]), "sand")

        width = rng.uniform(0.8, 2.2)
        foam = np.concatenate([edge, (edge - across * width)[::-1]])
        self._things.append(lambda: self.canvas.polygon(foam, _FOAM))

    def add_clutter(self, amount: float) -> None:
        """Add things that nobody labels: parasols, towels, rocks, whitecaps, buoys.

        Args:
            amount: 1 is usual.
        """
        rate = amount * self.height * self.width / (256 * 320)
        for _ in range(self.rng.poisson(5 * rate)):
            self._add_parasol() if self.rng.uniform() < 0.45 else self._add_towel()

        for _ in range(self.rng.poisson(2.5 * rate)):
            self._add_rock()
        for _ in range(self.rng.poisson(14 * rate * self.rng.uniform())):
            self._add_whitecap()
        for _ in range(self.rng.poisson(1.2 * rate)):
            self._add_buoy()

    def add_boat(self) -> None:
        """Place a boat on the water, sometimes with a wake; nothing if there is no room."""
        placed = self._try_places("boat", self._anywhere, WATER, 0.0)
        if placed and self.rng.uniform() < 0.35:
            # The wake is drawn before the figures and belongs to no box.
            pen = placed.pen
            wake = pen.to_image(np.array([(-1, -0.4), (-1, 0.4), (-2.6, 0.9), (-2.6, -0.9)]))
            self._things.append(lambda: self.canvas.polygon(wake, (150, 176, 182)))

    def add_people(self, count: int, uncertain_fraction: float, packed: bool) -> None:
        """Place people in loose groups on land and in the water.

        Args:
            count: largest number of people; fewer where there is no room.
            uncertain_fraction: share of people that can hardly be recognised.
            packed: one large crowd instead of groups.
        """
        rng, left = self.rng, count

        # Many attempts fail in a full scene, so their number is bounded, not that of the people.
        for _ in range(12 * count + 40):
            if left <= 0:
                break

            center = self._anywhere()
            spread = 0.3 * min(self.height, self.width) if packed else 3.0 * self._base
            members = left if packed else int(min(left, 1 + rng.geometric(0.4)))

            for _ in range(members):
                point = center if members == 1 else center + rng.normal(0, spread, 2)
                uncertain = bool(rng.uniform() < uncertain_fraction)
                placed = self._place_person(point, uncertain, 0.25 if packed else 0.08)
                left -= placed is not None

    def add_crowd(self) -> None:
        """Place a crowd so packed that it is labelled as one ignore region."""
        rng = self.rng
        size = self._base * np.array([rng.uniform(3, 7), rng.uniform(1.5, 3)])

        for _ in range(20):
            center = self._anywhere()
            low, high = center - size / 2, center + size / 2
            # The region of a crowd lies inside the image and on free ground.
            if (low < 1).any() or (high > (self.width - 1, self.height - 1)).any():
                continue
            if self._taken_share(np.concatenate([low, high])) > 0:
                continue

            members = []
            for _ in range(int(size.prod() / self._base**2 * 2.2) + 4):
                figure = self._make_person(rng.uniform(low, high), uncertain=False)
                if figure is not None:
                    members.append(figure)

            # A few people are no crowd: try another place.
            if len(members) < 4:
                continue

            boxes = np.stack([member.box for member in members])
            box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])

            self._occupy(box)
            self._figures += members
            region = Figure("crowd", members[0].pen, [], box, members[0].category, ignore=True)
            self._regions.append(region)
            return

    def annotations(self) -> list[Figure]:
        """Return the annotations: figures that are in no crowd, and the regions of the crowds.

        Returns:
            Figures from top to bottom.
        """
        crowd = [region.box for region in self._regions]
        labelled = [
            figure
            for figure in self._figures
            if not any(_contains(region, figure.box) for region in crowd)
        ]
        return sorted([*labelled, *self._regions], key=lambda figure: figure.box[3])

    def draw(self, shade_strength: float) -> None:
        """Draw things, shadows and figures on the canvas, which shows the ground.

        Args:
            shade_strength: darkness of the shadows, 0 to 1.
        """
        for thing in self._things:
            thing()

        # Lower figures are nearer to the camera and hide those behind them.
        order = sorted(self._figures, key=lambda figure: figure.box[3])
        for figure in order:
            casts = _KINDS[figure.kind].casts
            if casts:
                figure.pen.shadow(CIRCLE * (0.2, 0.7) - (0.9, 0), casts * figure.pen.length)

        self.canvas.apply_shadows(shade_strength)
        for figure in order:
            figures.draw_parts(figure.pen, figure.parts, figure.veil)

    def _anywhere(self) -> np.ndarray:
        return self.rng.uniform((0, 0), (self.width, self.height))

    def _zone(self, point: np.ndarray) -> int:
        """LAND or WATER under a point, 0 outside the image."""
        x, y = int(math.floor(point[0])), int(math.floor(point[1]))
        inside = 0 <= x < self.width and 0 <= y < self.height
        return int(self.ground.zone[y, x]) if inside else 0

    def _size_at(self, y: float) -> float:
        """Square root of a person's area here; nearer people stand lower and are larger."""
        return self._base * (1 + self._slope * (2 * y / self.height - 1))

    def _place_person(self, point: np.ndarray, uncertain: bool, overlap: float) -> Figure | None:
        figure = self._make_person(point, uncertain)
        if figure is None or self._taken_share(figure.box) > overlap:
            return None
        return self._keep(figure)

    def _make_person(self, point: np.ndarray, uncertain: bool) -> Figure | None:
        zone = self._zone(point)
        if not zone:
            return None

        if zone & LAND:
            kind = str(self.rng.choice(["standing", "sitting", "lying"], p=[0.6, 0.2, 0.2]))
        else:
            kind = str(self.rng.choice(["swimming", "standing"], p=[0.8, 0.2]))

        category = "earth_person" if zone & LAND else "sea_person"
        return self._make(kind, point, category, uncertain)

    def _try_places(
        self, kind: str, where: Callable[[], np.ndarray], zone: int, overlap: float
    ) -> Figure | None:
        # A few attempts: a scene without room goes without the figure.
        for _ in range(8):
            point = where()
            figure = self._make(kind, point, kind) if self._zone(point) & zone else None
            if figure is not None and self._taken_share(figure.box) <= overlap:
                return self._keep(figure)
        return None

    def _make(
        self, kind: str, point: np.ndarray, category: str, uncertain: bool = False
    ) -> Figure | None:
        """Make a figure of the size that its place asks for; None if too little of it shows."""
        rng, how = self.rng, _KINDS[kind]
        style, heading = Random(int(rng.integers(2**31))), _UP + rng.uniform(-1, 1) * how.spread

        # The size follows the place, with some spread, and stays within the limits by a margin.
        low, high = self._limits
        size = self._size_at(point[1]) * how.relative_size * float(np.exp(rng.normal(0, 0.18)))
        size = float(np.clip(size, 1.04 * low, 0.97 * high))

        aspect = rng.uniform(*how.aspect)
        parts = how.draw(style)
        length = size / math.sqrt(aspect)
        for _ in range(3):  # the label's area, not the pen's, has the wanted size
            pen = Pen(self.canvas, point, heading, length, length * aspect)
            box = figures.extent(pen, parts)
            length *= size / math.sqrt(float((box[2:] - box[:2]).prod()))

        # The border may cut a figure, but not to less than half or below the least size.
        shown = np.clip(box, 0, (self.width, self.height) * 2)
        share = (shown[2:] - shown[:2]).prod() / (box[2:] - box[:2]).prod()
        if share < _LEAST_VISIBLE or (shown[2:] - shown[:2]).prod() < low**2:
            return None

        veil = None
        if uncertain:
            y, x = (
                min(int(v), side - 1) for v, side in zip(point[::-1], (self.height, self.width))
            )
            veil = (tuple(int(v) for v in self.ground.color[y, x]), rng.uniform(0.5, 0.7))
        return Figure(kind, pen, parts, shown, category, uncertain, veil)

    def _keep(self, figure: Figure) -> Figure:
        self._occupy(figure.box)
        self._figures.append(figure)
        return figure

    def _rows_columns(self, box: np.ndarray) -> tuple[slice, slice]:
        x0, y0 = (max(int(math.floor(v)), 0) for v in box[:2])
        x1, y1 = (int(math.ceil(v)) for v in box[2:])
        return slice(y0, y1), slice(x0, x1)

    def _taken_share(self, box: np.ndarray) -> float:
        window = self._taken[self._rows_columns(box)]
        return float(window.mean()) if window.size else 1.0

    def _occupy(self, box: np.ndarray) -> None:
        self._taken[self._rows_columns(box)] = 1

    def _thing_at(self, zone: int, radius: float) -> np.ndarray | None:
        """Find a free place for something of this radius and mark it as taken."""
        for _ in range(6):
            center = self._anywhere()
            box = np.concatenate([center - radius, center + radius])
            if self._zone(center) & zone and self._taken_share(box) == 0:
                self._occupy(box)
                return center
        return None

    def _add_parasol(self) -> None:
        radius = self._base * self.rng.uniform(0.5, 0.9)
        center = self._thing_at(LAND, radius)
        if center is None:
            return

        color = _BRIGHT[self.rng.integers(len(_BRIGHT))]
        disc = CIRCLE * radius + center

        def draw() -> None:
            self.canvas.polygon(disc + (0.5 * radius, 0.4 * radius), (120, 108, 86))
            self.canvas.polygon(disc, color)
            self.canvas.polygon(CIRCLE[:16] * radius + center, shade(color, 0.8))

        self._things.append(draw)

    def _add_towel(self) -> None:
        length = self._base * self.rng.uniform(0.9, 1.6)
        center, color = self._thing_at(LAND, 0.5 * length), _BRIGHT[self.rng.integers(len(_BRIGHT))]
        if center is not None:
            pen = Pen(self.canvas, center, self.rng.uniform(0, math.pi), length, 0.45 * length)
            self._things.append(lambda: pen.rect(-1, 1, -1, 1, shade(color, 0.9)))

    def _add_rock(self) -> None:
        radius = self._base * self.rng.uniform(0.3, 1.0)
        center = self._thing_at(LAND | WATER, radius)
        if center is not None:
            outline = CIRCLE * (radius * self.rng.uniform(0.7, 1, (len(CIRCLE), 1))) + center
            tone = int(self.rng.integers(50, 110))
            self._things.append(lambda: self.canvas.polygon(outline, (tone, tone - 6, tone - 14)))

    def _add_whitecap(self) -> None:
        half = self.rng.uniform(1.0, 5.0)
        center = self._thing_at(WATER, 0.5 * half)
        if center is not None:
            cap = CIRCLE * (half, self.rng.uniform(0.3, 0.8)) + center
            self._things.append(lambda: self.canvas.polygon(cap, (186, 204, 208)))

    def _add_buoy(self) -> None:
        radius = self.rng.uniform(0.7, 1.6)
        center = self._thing_at(WATER, radius)
        if center is not None:
            disc, color = CIRCLE * radius + center, _BRIGHT[self.rng.integers(3)]
            self._things.append(lambda: self.canvas.polygon(disc, color))


def _contains(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Tell whether a box lies in another one."""
    return bool((outer[:2] <= inner[:2]).all() and (outer[2:] >= inner[2:]).all())
