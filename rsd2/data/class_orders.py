"""Class lists of known datasets, and the orders in which other toolboxes number them.

A checkpoint knows numbers, not names: read with another list, every class is another one. So each
order has a name here, and `rsd2.weights.conversion.class_permutation` brings one into another. No
Detectron2 needed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

SYNTHETIC_CLASSES = (
    "plane",
    "ship",
    "large-vehicle",
    "small-vehicle",
    "storage-tank",
    "harbor",
    "bridge",
)
"""Classes of the generated scenes, in the order of their labels."""

DOTA_V1_0_CLASSES = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
"""In mmrotate's order, which is the one of most published checkpoints."""
DOTA_V1_5_CLASSES = (*DOTA_V1_0_CLASSES, "container-crane")
DOTA_V2_0_CLASSES = (*DOTA_V1_5_CLASSES, "airport", "helipad")

DIOR_R_CLASSES = (
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "dam",
    "expressway-service-area",
    "expressway-toll-station",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
)
"""In alphabetical order, which is MutDet's; mmrotate and ARS-DETR put the dam after the
expressways. The files mix upper and lower case, these names do not."""

OHD_SJTU_S_CLASSES = ("ship", "plane")
OHD_SJTU_L_CLASSES = ("ship", "plane", "small-vehicle", "large-vehicle", "harbor", "helicopter")
"""In the order of MutDet and ARS-DETR; the dataset's own numbers are the order ``official``."""

HRSC2016_TYPES = (
    *("ship", "aircraft carrier", "warcraft", "merchant ship", "Nimitz", "Enterprise"),
    *("Arleigh Burke", "WhidbeyIsland", "Perry", "Sanantonio", "Ticonderoga", "Kitty Hawk"),
    *("Kuznetsov", "Abukuma", "Austen", "Tarawa", "Blue Ridge", "Container", "OXo|--)"),
    *("Car carrier([]==[])", "Hovercraft", "yacht", "CntShip(_|.--.--|_]=", "Cruise"),
    *("submarine", "lute", "Medical", "Car carrier(======|", "Ford-class", "Midway-class"),
    "Invincible-class",
)
"""In the order of the numbers of HRSC2016's ``sysdata.xml``; the first four are no types but
groups, for ships whose type nobody could tell."""

FAIR1M_GROUPS = {
    "airplane": (
        *("Boeing737", "Boeing747", "Boeing777", "Boeing787", "ARJ21", "C919", "A220", "A321"),
        *("A330", "A350", "other-airplane"),
    ),
    "ship": (
        *("Passenger Ship", "Motorboat", "Fishing Boat", "Tugboat", "Engineering Ship"),
        *("Liquid Cargo Ship", "Dry Cargo Ship", "Warship", "other-ship"),
    ),
    "vehicle": (
        *("Small Car", "Bus", "Cargo Truck", "Dump Truck", "Van", "Trailer", "Tractor"),
        *("Excavator", "Truck Tractor", "other-vehicle"),
    ),
    "court": ("Baseball Field", "Basketball Court", "Football Field", "Tennis Court"),
    "road": ("Roundabout", "Intersection", "Bridge"),
}
"""Group -> the fine classes of FAIR1M in it."""

SODA_A_CLASSES = (
    *("airplane", "helicopter", "small-vehicle", "large-vehicle", "ship", "container"),
    *("storage-tank", "swimming-pool", "windmill"),
)
"""In the order of the numbers that the dataset gives them."""

_ULTRALYTICS_DOTA = (
    "plane",
    "ship",
    "storage-tank",
    "baseball-diamond",
    "tennis-court",
    "basketball-court",
    "ground-track-field",
    "harbor",
    "bridge",
    "large-vehicle",
    "small-vehicle",
    "helicopter",
    "roundabout",
    "soccer-ball-field",
    "swimming-pool",
)
_DAM_AFTER_EXPRESSWAYS = (
    *DIOR_R_CLASSES[:6],
    *DIOR_R_CLASSES[7:9],
    DIOR_R_CLASSES[6],
    *DIOR_R_CLASSES[9:],
)
_OHD_L_NUMBERS = ("small-vehicle", "ship", "plane", "large-vehicle", "helicopter", "harbor")

CLASS_ORDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "dota_v1.0": {
        "rsd2": DOTA_V1_0_CLASSES,
        "mmrotate": DOTA_V1_0_CLASSES,
        "mutdet": DOTA_V1_0_CLASSES,
        "ars_detr": DOTA_V1_0_CLASSES,
        "ultralytics": _ULTRALYTICS_DOTA,
    },
    "dota_v1.5": {"rsd2": DOTA_V1_5_CLASSES, "mmrotate": DOTA_V1_5_CLASSES},
    "dota_v2.0": {"rsd2": DOTA_V2_0_CLASSES, "mmrotate": DOTA_V2_0_CLASSES},
    "dior_r": {
        "rsd2": DIOR_R_CLASSES,
        "alphabetical": DIOR_R_CLASSES,
        "mutdet": DIOR_R_CLASSES,
        "ars_detr": _DAM_AFTER_EXPRESSWAYS,
        "mmrotate": _DAM_AFTER_EXPRESSWAYS,
    },
    "ohd_sjtu_s": {
        "rsd2": OHD_SJTU_S_CLASSES,
        "mutdet": OHD_SJTU_S_CLASSES,
        "ars_detr": OHD_SJTU_S_CLASSES,
        "official": OHD_SJTU_S_CLASSES,
    },
    "ohd_sjtu_l": {
        "rsd2": OHD_SJTU_L_CLASSES,
        "mutdet": OHD_SJTU_L_CLASSES,
        "ars_detr": OHD_SJTU_L_CLASSES,
        "official": _OHD_L_NUMBERS,
    },
    "hrsc2016": {"rsd2": ("ship",), "mmrotate": ("ship",)},
    "hrsc2016_types": {"rsd2": HRSC2016_TYPES, "mmrotate": HRSC2016_TYPES},
    "fair1m": {"rsd2": tuple(name for names in FAIR1M_GROUPS.values() for name in names)},
    "fair1m_coarse": {"rsd2": tuple(FAIR1M_GROUPS)},
    "soda_a": {"rsd2": SODA_A_CLASSES, "official": SODA_A_CLASSES},
}
"""Dataset -> toolbox -> canonical class names, in that toolbox's order."""


def class_order(dataset: str, toolbox: str = "rsd2") -> tuple[str, ...]:
    """Class names of a dataset in the order of a toolbox.

    Args:
        dataset: a key of ``CLASS_ORDERS``, e.g. ``"dior_r"``.
        toolbox: a key of its orders, e.g. ``"ars_detr"``; ``"rsd2"`` is the order of this project.

    Returns:
        the canonical names; category k of that toolbox is the k-th.

    Raises:
        ValueError: if there is no such dataset or order; the known ones are listed.
    """
    if dataset not in CLASS_ORDERS:
        raise ValueError(f"no class orders of {dataset!r}; known are {', '.join(CLASS_ORDERS)}")
    orders = CLASS_ORDERS[dataset]
    if toolbox not in orders:
        raise ValueError(f"no class order {toolbox!r} of {dataset}; known are {', '.join(orders)}")
    return orders[toolbox]


def canonical_class_name(name: str, known: Iterable[str]) -> str:
    """Spell a class name as a list does, whatever its case, hyphens, blanks and underscores.

    Args:
        name: name as a file writes it, e.g. ``"Expressway-Service-area"``.
        known: canonical names.

    Returns:
        the canonical name, or ``name`` itself if it is none of the known ones.
    """
    if isinstance(known, tuple):
        return _spellings(known).get(_letters(name), name)
    return {_letters(one): one for one in known}.get(_letters(name), name)


@functools.lru_cache(maxsize=64)
def _spellings(known: tuple[str, ...]) -> dict[str, str]:
    """Return the letters of each name -> the name."""
    return {_letters(one): one for one in known}


@functools.lru_cache(maxsize=4096)
def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
