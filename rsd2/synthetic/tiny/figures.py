"""People and boats of a few pixels: each figure is a list of coloured polygons.

Polygons are in the frame of a :class:`Pen`: x from -1 (feet, stern) to 1 (head, bow), y from -1 to
1. The extent of the polygons in the image, not that of the pen, is the label.
Shapes: P points of a polygon.
"""

from __future__ import annotations

from random import Random

import numpy as np

from rsd2.synthetic.canvas import CIRCLE, Color, Pen, shade

Part = tuple[np.ndarray, Color]

SKIN: tuple[Color, ...] = ((232, 190, 160), (206, 156, 124), (150, 104, 76), (92, 62, 46))
_HAIR: tuple[Color, ...] = ((34, 28, 26), (70, 46, 30), (186, 150, 92), (150, 150, 150))
_CLOTHES: tuple[Color, ...] = (
    (196, 40, 44),
    (34, 66, 150),
    (28, 30, 34),
    (236, 236, 232),
    (226, 122, 40),
    (60, 130, 76),
    (206, 70, 140),
    (236, 206, 60),
)
_HULLS: tuple[Color, ...] = (
    (238, 238, 236),
    (226, 228, 230),
    (196, 52, 44),
    (48, 86, 150),
    (224, 148, 44),
    (92, 66, 48),
)


def _box(x0: float, x1: float, half: float) -> np.ndarray:
    return np.array([(x0, -half), (x1, -half), (x1, half), (x0, half)])


def _ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return CIRCLE * (rx, ry) + (x, y)


def standing_person(rng: Random) -> list[Part]:
    """Draw someone upright: legs, trunks, trunk, arms, head with hair.

    Args:
        rng: chooses the colours and the stance.

    Returns:
        Parts from back to front.
    """
    skin, hair = rng.choice(SKIN), rng.choice(_HAIR)
    # Many people on a beach wear no shirt.
    shirt = skin if rng.random() < 0.4 else rng.choice(_CLOTHES)
    trunks, apart = rng.choice(_CLOTHES), rng.uniform(0.25, 0.75)

    legs = [
        (np.array([(-1, s * apart), (-1, s * apart * 0.3), (-0.1, 0), (-0.1, s * 0.6)]), skin)
        for s in (-1, 1)
    ]
    arms = [
        (np.array([(0.56, s * 0.6), (0.5, s), (-0.12, s), (-0.1, s * 0.72)]), shade(skin, 0.92))
        for s in (-1, 1)
    ]

    return [
        *legs,
        *arms,
        (_box(-0.25, 0.05, 0.62), trunks),
        (_box(0.02, 0.6, 0.7), shirt),
        (_ellipse(0.8, 0, 0.2, 0.46), skin),
        (_ellipse(0.88, 0, 0.12, 0.46), hair),
    ]


def sitting_person(rng: Random) -> list[Part]:
    """Draw someone who sits: a broad base, trunk and head.

    Args:
        rng: chooses the colours.

    Returns:
        Parts from back to front.
    """
    skin, hair, shirt = rng.choice(SKIN), rng.choice(_HAIR), rng.choice((*_CLOTHES, *SKIN))
    return [
        (_ellipse(-0.6, 0, 0.4, 1), skin),
        (_ellipse(-0.62, 0, 0.24, 0.6), rng.choice(_CLOTHES)),
        (_box(-0.6, 0.35, 0.52), shirt),
        (_ellipse(0.62, 0, 0.38, 0.42), skin),
        (_ellipse(0.78, 0, 0.22, 0.42), hair),
    ]


def lying_person(rng: Random) -> list[Part]:
    """Draw someone who lies, seen from above, often on a towel that the label leaves out.

    Args:
        rng: chooses the colours.

    Returns:
        Parts from back to front.
    """
    skin, hair = rng.choice(SKIN), rng.choice(_HAIR)
    return [
        (np.array([(-1, -0.55), (-1, 0.55), (0.5, 1), (0.56, -1)]), skin),
        (_box(-0.3, 0.02, 0.86), rng.choice(_CLOTHES)),
        (_ellipse(0.78, 0, 0.22, 0.55), hair),
    ]


def swimming_person(rng: Random) -> list[Part]:
    """Draw head and shoulders above the water.

    Args:
        rng: chooses the colours.

    Returns:
        Parts from back to front.
    """
    skin, hair = rng.choice(SKIN), rng.choice(_HAIR)
    suit = skin if rng.random() < 0.6 else rng.choice(_CLOTHES)

    return [
        (np.array([(-1, -1), (-1, 1), (-0.2, 0.86), (-0.2, -0.86)]), suit),
        (_ellipse(0.3, 0, 0.7, 0.5), skin),
        (_ellipse(0.62, 0, 0.38, 0.5), hair),
    ]


def boat(rng: Random) -> list[Part]:
    """Draw a small boat from above: hull, deck, and a cabin, thwarts or a person's cap.

    Args:
        rng: chooses colours and kind.

    Returns:
        Parts from back to front.
    """
    hull, kind = rng.choice(_HULLS), rng.random()
    outline = np.array(
        [(-1, -0.8), (-1, 0.8), (-0.2, 1), (0.55, 0.7), (1, 0), (0.55, -0.7), (-0.2, -1)]
    )
    deck = outline * (0.78, 0.62) + (-0.06, 0)

    parts = [(outline, hull), (deck, shade(hull, 0.62) if kind < 0.6 else (168, 136, 96))]
    if kind < 0.45:
        parts += [(_box(-0.35, 0.2, 0.5), shade(hull, 1.1)), (_box(0.2, 0.34, 0.44), (40, 48, 58))]
    elif kind < 0.75:
        parts += [(_box(x, x + 0.14, 0.55), shade(hull, 1.05)) for x in (-0.6, -0.15, 0.3)]
    else:
        parts.append((_ellipse(-0.3, 0, 0.22, 0.4), rng.choice(_CLOTHES)))
    return parts


def draw_parts(pen: Pen, parts: list[Part], veil: tuple[Color, float] | None = None) -> None:
    """Draw the parts of a figure.

    Args:
        pen: pen at the place of the figure.
        parts: parts from back to front.
        veil: (colour, share) mixed into every part, as haze or spray would; None for none.
    """
    for points, color in parts:
        if veil is not None:
            tint, share = veil
            red, green, blue = (int(c * (1 - share) + t * share) for c, t in zip(color, tint))
            color = (red, green, blue)

        pen.fill(points, color)


def extent(pen: Pen, parts: list[Part]) -> np.ndarray:
    """Return the upright box around a figure.

    Args:
        pen: pen at the place of the figure.
        parts: parts of the figure.

    Returns:
        (4,) float64 x0, y0, x1, y1, image pixels.
    """
    points = pen.to_image(np.concatenate([points for points, _ in parts]))
    # The pen leaves out the half sub-pixel by which cv2 widens every polygon on each side.
    half = 0.5 / pen.canvas.supersample
    return np.concatenate([points.min(axis=0) - half, points.max(axis=0) + half])
