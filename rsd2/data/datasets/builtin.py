"""Known datasets under ``$DETECTRON2_DATASETS`` (default ``./datasets``).

`register_builtin` registers them. The files may be absent: loading a dataset whose files are
missing raises an error that names the folder. ``README.md`` beside this file shows the expected
tree.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.class_orders import SYNTHETIC_CLASSES, class_order
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.scene_files import SceneFiles

from .aitod import AITOD_SPLITS, AITOD_VERSIONS, register_aitod
from .classification import register_classification
from .dior_r import DIOR_R_SPLITS, register_dior_r
from .dota import register_dota_instances
from .dota_tiles import register_dota_tiles, register_virtual_tiles
from .drone_crowd import DRONE_CROWD_SPLITS, register_drone_crowd
from .fair1m import FAIR1M_SPLITS, register_fair1m
from .hrsc2016 import HRSC2016_SPLITS, register_hrsc2016
from .ohd_sjtu import register_ohd_sjtu
from .rscardata import RSCARDATA_LABELS, register_rscardata
from .scenes import register_scene_files
from .soda_a import SODA_A_SPLITS, register_soda_a
from .tiny_person import OVERLAPS, WINDOW, register_synthetic_tiny, register_tiny_person
from .upright import register_upright
from .viso import VISO_CLASSES, VISO_SPLITS, register_viso_coco, register_viso_mot

Tilings = Sequence[tuple[int, int]]
"""Window and overlap of each tiling, in pixels."""

_DOTA_VERSIONS = {
    "v1.0": ("train", "val", "test"),
    "v1.5": ("train", "val", "test"),
    "v2.0": ("train", "val", "test-dev", "test-challenge"),
}
_TILINGS = ((800, 200), (1024, 200))
_OHD_TILING = (600, 150)
_ORIENTED: tuple[tuple[str, Callable[..., None], Iterable[str], Tilings, tuple[str, ...]], ...] = (
    ("hrsc2016", register_hrsc2016, HRSC2016_SPLITS, (), ("types",)),
    ("fair1m", register_fair1m, FAIR1M_SPLITS, ((1024, 200),), ("coarse",)),
    ("soda_a", register_soda_a, SODA_A_SPLITS, ((800, 150),), ()),
)
"""Folder, registration, splits, tilings, and options that give datasets of their own."""
_SEN2SHIPS_PORTS = {
    "train": ["algiers", "athens", "casablanca", "durban", "genoa", "hedland", "klang", "valencia"],
    "test": ["busan", "cartagena", "honolulu"],
}
# The second one is as large as the parts of training, as a DETR wants them.
_SEN2SHIPS_TILINGS = ((384, 128), (256, 96))
_SEN2SHIPS_SCALE = 3.0
# Folders of DOTA text: their class and their splits.
_DOTA_TEXT_SETS = {
    "hrsc": ("ship", ("train", "test")),
    "airport": ("airplane", ("train", "valid", "test")),
}
_AIRPORT_TILING = (256, 96)


def register_all_dota(root: str | Path) -> None:
    """Register DOTA-v1.0, v1.5 and v2.0: full images, written tiles and virtual tiles.

    Names are ``dota_v1.0_train``, ``dota_v1.0_train_1024_200`` (window and overlap of the tiles)
    and ``dota_v1.0_train_1024_200_virtual``; the first two also with ``_upright`` behind them, for
    the same objects in upright boxes. Calling it again with the same root does nothing; another
    root moves the datasets there. A name that you registered yourself stays yours.

    Args:
        root: folder that holds ``dota``.
    """
    for version, splits in _DOTA_VERSIONS.items():
        base = Path(root) / "dota" / version
        classes = class_order(f"dota_{version}")
        for split in splits:
            name = f"dota_{version}_{split}"
            views = ["_upright", *(f"_{window}_{overlap}_upright" for window, overlap in _TILINGS)]
            if _is_registered_under(name, str(root), suffixes=views):
                continue
            metadata = {"thing_classes": list(classes), "builtin_root": str(root)}
            # The labels of the test splits are not published.
            labels = None if split.startswith("test") else base / split / "labelTxt"
            register_dota_instances(name, metadata, labels, base / split / "images")
            # The evaluator merges upright tiles and compares them with the upright whole images.
            whole = {"builtin_root": str(root), "source_dataset": f"{name}_upright"}
            register_upright(f"{name}_upright", name, {"builtin_root": str(root)})
            for window, overlap in _TILINGS:
                tiles = f"{name}_{window}_{overlap}"
                folder = base / "tiles" / f"{split}_{window}_{overlap}"
                register_dota_tiles(tiles, metadata, folder, source_dataset=name)
                register_upright(f"{tiles}_upright", tiles, whole)
                register_virtual_tiles(f"{tiles}_virtual", name, window=window, overlap=overlap)


def register_all_dior_r(root: str | Path) -> None:
    """Register DIOR-R's splits ``dior_r_train``, ``_val``, ``_trainval`` and ``_test``.

    Classes are in the order of this project and MutDet; `register_dior_r` knows others. Calling it
    again is as harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``dior_r``.
    """
    for split in DIOR_R_SPLITS:
        name = f"dior_r_{split}"
        if not _is_registered_under(name, str(root), ()):
            metadata = {"builtin_root": str(root)}
            register_dior_r(name, Path(root) / "dior_r", split, metadata=metadata)


def register_all_ohd_sjtu(root: str | Path) -> None:
    """Register OHD-SJTU-S and -L: full images, and virtual tiles of 600 pixels, 150 of overlap.

    Names are ``ohd_sjtu_s_trainval``, ``ohd_sjtu_l_test`` and so on, and
    ``ohd_sjtu_s_trainval_600_150_virtual``. Calling it again is as harmless as with
    `register_all_dota`.

    Args:
        root: folder that holds ``ohd_sjtu``.
    """
    window, overlap = _OHD_TILING
    for version in ("S", "L"):
        for split in ("trainval", "test"):
            name = f"ohd_sjtu_{version.lower()}_{split}"
            if not _is_registered_under(name, str(root), (), (_OHD_TILING,)):
                folder = Path(root) / "ohd_sjtu" / version / split
                register_ohd_sjtu(name, folder, version, metadata={"builtin_root": str(root)})
                tiles = f"{name}_{window}_{overlap}_virtual"
                register_virtual_tiles(tiles, name, window=window, overlap=overlap)


def register_all_oriented(root: str | Path) -> None:
    """Register HRSC2016, FAIR1M and SODA-A, of which the last two also have virtual tiles.

    Names are ``hrsc2016_<split>`` and the same ``+ _types`` (31 types of ships),
    ``fair1m_<split>``, ``fair1m_<split>_coarse`` (five groups), both also ``+ _1024_200_virtual``,
    ``soda_a_<split>`` and ``soda_a_<split>_800_150_virtual``. Calling it again is as harmless as
    with `register_all_dota`.

    Args:
        root: folder that holds ``hrsc2016``, ``fair1m`` and ``soda_a``.
    """
    metadata = {"builtin_root": str(root)}
    for folder, add, splits, tilings, options in _ORIENTED:
        for split, option in itertools.product(splits, ("", *options)):
            name = f"{folder}_{split}" + (f"_{option}" if option else "")
            if _is_registered_under(name, str(root), (), tilings):
                continue
            chosen = {option: True} if option else {}
            add(name, Path(root) / folder, split, metadata=metadata, **chosen)
            for window, overlap in tilings:
                tiles = f"{name}_{window}_{overlap}_virtual"
                register_virtual_tiles(tiles, name, window=window, overlap=overlap)


def register_all_synthetic(root: str | Path) -> None:
    """Register the generated scenes ``synthetic_train`` and ``synthetic_val``.

    ``synthetic_train_upright`` and ``synthetic_val_upright`` have the same objects in upright
    boxes.
    ``tools/make_synthetic.py --output <root>/synthetic/train`` draws them. Calling it again is as
    harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``synthetic``.
    """
    for split in ("train", "val"):
        name, folder = f"synthetic_{split}", Path(root) / "synthetic" / split
        if not _is_registered_under(name, str(root), (), suffixes=["_upright"]):
            metadata = {"thing_classes": list(SYNTHETIC_CLASSES), "builtin_root": str(root)}

            # Boxes of objects that the border cuts leave the image on purpose.
            register_dota_instances(
                name, metadata, folder / "labelTxt", folder / "images", out_of_image="ignore"
            )
            register_upright(f"{name}_upright", name, {"builtin_root": str(root)})


def register_all_tiny(root: str | Path) -> None:
    """Register the datasets of tiny objects: TinyPerson, AI-TOD and generated scenes.

    Names are ``tiny_person_train``, ``_test`` and those derived from them by
    ``register_tiny_person``, ``aitod_<split>``, ``aitodv2_<split>``, ``synthetic_tiny_train`` and
    ``_val``. Calling it again is as harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``tiny_set``, ``aitod`` and ``synthetic_tiny``.
    """
    root, metadata = Path(root), {"builtin_root": str(root)}
    suffixes = ["_corner", *(f"_{WINDOW[0]}x{WINDOW[1]}_{overlap}" for overlap in OVERLAPS)]
    for split in ("train", "test"):
        name = f"tiny_person_{split}"
        if not _is_registered_under(name, str(root), (), suffixes=suffixes):
            register_tiny_person(name, root / "tiny_set", split, metadata)

    for version in AITOD_VERSIONS:
        for split in AITOD_SPLITS:
            if not _is_registered_under(f"{version}_{split}", str(root), ()):
                register_aitod(f"{version}_{split}", root / "aitod", version, split, metadata)

    for split in ("train", "val"):
        name = f"synthetic_tiny_{split}"
        if not _is_registered_under(name, str(root), ()):
            register_synthetic_tiny(name, root / "synthetic_tiny" / split, metadata)


def register_all_scenes(root: str | Path) -> None:
    """Register the georeferenced scenes of Sen2Ships: ports at 10 m, three times enlarged.

    Names are ``sen2ships_train`` and ``sen2ships_test`` (whole ports), and the same with
    ``_384_128`` or ``_256_96`` behind them (windows). A ship of 20 x 7 pixels becomes one of 60 x
    21. Calling it again is as harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``sen2ships``.
    """
    for split, ports in _SEN2SHIPS_PORTS.items():
        name, folder = f"sen2ships_{split}", Path(root) / "sen2ships" / split
        (window, overlap), *others = _SEN2SHIPS_TILINGS
        if _is_registered_under(name, str(root), _SEN2SHIPS_TILINGS, ()):
            continue
        register_scene_files(
            name,
            [SceneFiles(port, (str(folder / f"{port}.tif"),)) for port in ports],
            [folder / f"{port}.json" for port in ports],
            ["ship"],
            window=window,
            overlap=overlap,
            metadata={"builtin_root": str(root)},
            radiometry=Radiometry(scaling="percentile", percentiles=(1.0, 99.5)),
            scale=_SEN2SHIPS_SCALE,
        )
        for window, overlap in others:
            register_virtual_tiles(
                f"{name}_{window}_{overlap}", name, window=window, overlap=overlap
            )


def register_all_small(root: str | Path) -> None:
    """Register small real sets whose labels are DOTA text: HRSC2016 and the airports of GDIT.

    Names are ``hrsc_train``, ``hrsc_test``, ``airport_train``, ``airport_valid``,
    ``airport_test``, and the same ``+ _upright``, in upright boxes; of the airports also ``+
    _256_96_virtual``, windows of 256 pixels. Calling it again is as harmless as with
    `register_all_dota`.

    Args:
        root: folder that holds ``hrsc`` and ``airport``.
    """
    for folder, (label, splits) in _DOTA_TEXT_SETS.items():
        for split in splits:
            name, base = f"{folder}_{split}", Path(root) / folder / split
            tilings = (_AIRPORT_TILING,) if folder == "airport" else ()
            if not _is_registered_under(name, str(root), (), tilings, suffixes=["_upright"]):
                metadata = {"thing_classes": [label], "builtin_root": str(root)}
                # Ships and planes that the border cuts have their whole box, which leaves the
                # image.
                register_dota_instances(
                    name, metadata, base / "labelTxt", base / "images", out_of_image="ignore"
                )
                register_upright(f"{name}_upright", name, {"builtin_root": str(root)})
                for window, overlap in tilings:
                    windows = f"{name}_{window}_{overlap}_virtual"
                    register_virtual_tiles(windows, name, window=window, overlap=overlap)


def register_all_video(root: str | Path) -> None:
    """Register the datasets of videos: RsCarData, KIT AIS, VISO, DroneCrowd, and generated videos.

    Names are ``rscardata_train``, ``rscardata_test`` (old labels), the same ``+ _new``,
    ``rscardata_test_old_voc`` and ``_new_voc``; ``synthetic_video_train`` and ``_test`` (all that
    moves), the same ``+ _old``, and ``synthetic_video_test_old_voc``; ``viso_mot_<class>``,
    ``viso_coco_<class>_<split>``; ``drone_crowd_<split>`` (boxes) and the same ``+ _points``;
    ``kit_ais_train`` and ``_test``. Calling it again is as harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``rscardata``, ``synthetic_video``, ``viso``, ``drone_crowd``,
            ``kit_ais``.
    """
    root, metadata = Path(root), {"builtin_root": str(root)}
    coco, voc = RSCARDATA_LABELS[:2], RSCARDATA_LABELS[2:]
    # The published labels of RsCarData are the old ones; generated videos are labelled completely.
    for folder, usual, files in (("rscardata", "old", voc), ("synthetic_video", "new", voc[:1])):
        for split in ("train", "test"):
            for labels in coco if split == "train" else (*coco, *files):
                name = f"{folder}_{split}" + ("" if labels == usual else f"_{labels}")
                if not _is_registered_under(name, str(root), ()):
                    register_rscardata(name, root / folder, split, labels, metadata)

    for split in ("train", "test"):
        name, file = f"kit_ais_{split}", f"annotations_{split}.json"
        if not _is_registered_under(name, str(root), ()):
            register_rscardata(name, root / "kit_ais", split, metadata=metadata, coco_file=file)

    for kind in VISO_CLASSES:
        if not _is_registered_under(f"viso_mot_{kind}", str(root), ()):
            register_viso_mot(f"viso_mot_{kind}", root / "viso", kind, metadata)
        for split in VISO_SPLITS:
            name = f"viso_coco_{kind}_{split}"
            if not _is_registered_under(name, str(root), ()):
                register_viso_coco(name, root / "viso", kind, split, metadata)

    for split in DRONE_CROWD_SPLITS:
        for source, suffix in (("boxes", ""), ("points", "_points")):
            name = f"drone_crowd_{split}{suffix}"
            if not _is_registered_under(name, str(root), ()):
                register_drone_crowd(name, root / "drone_crowd", split, source, metadata)


def _is_registered_under(
    name: str,
    root: str,
    written: Sequence[tuple[int, int]] = _TILINGS,
    virtual: Sequence[tuple[int, int]] | None = None,
    suffixes: Sequence[str] = (),
) -> bool:
    """Tell whether to leave a name alone: it is the user's own, or ours under the same root.

    Names of ours under another root are removed, so that they can be registered again.
    """
    if name not in DatasetCatalog.list():
        return False
    registered = MetadataCatalog.get(name).get("builtin_root", None)
    if registered is None or registered == root:
        return True
    # Everything derived from the name reads the old folder, too.
    derived = [f"{name}_{window}_{overlap}" for window, overlap in written]
    windows = written if virtual is None else virtual
    derived += [f"{name}_{window}_{overlap}_virtual" for window, overlap in windows]
    derived += [f"{name}{suffix}" for suffix in suffixes]
    for old in (name, *derived):
        DatasetCatalog.remove(old)
        MetadataCatalog.remove(old)
    return False


def register_all(root: str | Path) -> None:
    """Register all known datasets under one folder.

    Calling it again is as harmless as with `register_all_dota`.

    Args:
        root: folder that holds ``dota``, ``dior_r`` and so on.
    """
    for register in (
        register_all_dota,
        register_all_dior_r,
        register_all_ohd_sjtu,
        register_all_oriented,
        register_all_synthetic,
        register_all_tiny,
        register_all_scenes,
        register_all_small,
        register_all_video,
        register_classification,
    ):
        register(root)


def datasets_root() -> str:
    """Return the folder of the datasets.

    Returns:
        ``$DETECTRON2_DATASETS``, or ``datasets`` if the variable is not set.
    """
    return os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))


@functools.cache
def register_builtin() -> None:
    """Register all known datasets under `datasets_root`, once in a process.

    Every tool calls it at its start; ``import rsd2.data.datasets`` does too, as users of Detectron2
    expect. Later calls do nothing, so that datasets which a program moved to another folder with
    ``register_all`` or one of its parts stay there.
    """
    register_all(datasets_root())
