"""Themes of the synthetic scenes by name, with the ground they lie on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .land_themes import airport, nothing, parking, streets, tank_farm
from .site import Site
from .water_themes import marina, port, river


@dataclass(frozen=True)
class Theme:
    """A kind of scene.

    Args:
        fill: function that lays out the scene on a fresh site, with an amount of clutter (1 is
            usual).
        grounds: materials of the ground, one is drawn by chance.
        weight: default of the relative frequency, chosen so that no class is rare in small scenes.
    """

    fill: Callable[[Site, float], None]
    grounds: tuple[str, ...]
    weight: float


EMPTY = "empty"
THEMES: dict[str, Theme] = {
    "airport": Theme(airport, ("grass", "meadow", "dry_field"), 1.7),
    "marina": Theme(marina, ("grass", "old_asphalt", "gravel"), 1.1),
    "port": Theme(port, ("concrete",), 1.1),
    "parking": Theme(parking, ("grass", "gravel", "old_asphalt"), 0.6),
    "streets": Theme(streets, ("grass", "meadow"), 0.5),
    "river": Theme(river, ("grass", "meadow", "forest_floor"), 1.9),
    "tank_farm": Theme(tank_farm, ("grass", "soil", "dry_field"), 0.8),
    EMPTY: Theme(nothing, ("grass", "soil", "meadow", "sand"), 0.0),
}
