"""Writes tiny scenes in TinyPerson's format: images and one COCO file with its extra fields."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from rsd2.io.files import write_atomically
from rsd2.io.image_io import write_image
from rsd2.synthetic.writer import RECORD_NAME, SCENE_PNG, NumberedFolder, scene_files

from .scene import TINY_CATEGORIES, TinyScene, TinySceneConfig, draw_tiny_scene

ANNOTATION_NAME = "annotations.json"
_LABELS = "records/{}.json"
_BINS = {"tiny1": (0, 8), "tiny2": (8, 12), "tiny3": (12, 20), "larger": (20, np.inf)}


def write_tiny_scenes(
    folder: str | Path,
    num_images: int,
    config: TinySceneConfig,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Write scenes as a folder in TinyPerson's format, or finish a folder that was begun.

    The folder gets ``images/S000000.png``, ``records/S000000.json`` (the objects of one scene; its
    presence stands for a complete scene), and when all are drawn ``annotations.json`` and
    ``scenes.json`` (parameters and statistics of the sizes).

    Args:
        folder: to write to; made if it is missing.
        num_images: of the finished folder, >= 1; a finished folder may be enlarged.
        config: what the scenes look like.
        seed: of the set, >= 0.
        num_workers: processes that draw; 0 draws in this one. The files do not depend on it. With
            more than 0, a script must call this under ``if __name__ == "__main__"``.
        progress: show a progress bar.
        shard: (rank, number of processes) when several processes draw one set.

    Returns:
        The folder.

    Raises:
        ValueError: if a number is out of range.
        FolderTakenError: if the folder holds scenes of other parameters, or files of another
            origin.
    """
    folder = Path(folder)
    head = {"parameters": {**config.to_dict(), "seed": seed}, "classes": list(TINY_CATEGORIES)}
    files = partial(scene_files, folder, _LABELS)
    work = partial(_write_scene, folder, config, seed)
    gather = partial(_gather, folder, num_images)
    scenes = NumberedFolder(
        folder / RECORD_NAME, head, "tiny scenes", num_images, files, work, gather
    )
    scenes.finish(num_workers, progress, shard)
    return folder


def describe_annotations(coco: dict) -> dict:
    """Count what a COCO file with TinyPerson's extra fields holds.

    Args:
        coco: content of the file: ``images``, ``annotations``, ``categories``.

    Returns:
        ``num_images``, ``empty_images``, ``dense_images``, ``objects`` (category -> number of
        ordinary boxes), ``ignore``, ``uncertain`` and ``logo`` boxes, ``sizes`` (range -> number
        of ordinary boxes; the upper end excluded) and ``size_quantiles`` (5, 25, 50, 75, 95 % of
        the square root of the area, pixels).
    """
    names = {category["id"]: category["name"] for category in coco["categories"]}
    flags = ("ignore", "uncertain", "logo")
    ordinary = [a for a in coco["annotations"] if not any(a[flag] for flag in flags)]
    sizes = np.sqrt([a["area"] for a in ordinary])
    objects = Counter(names[a["category_id"]] for a in ordinary)
    labelled = {a["image_id"] for a in coco["annotations"]}
    dense = {a["image_id"] for a in coco["annotations"] if a["in_dense_image"]}
    quantiles = np.quantile(sizes, (0.05, 0.25, 0.5, 0.75, 0.95)) if len(sizes) else ()
    return {
        "num_images": len(coco["images"]),
        "empty_images": len(coco["images"]) - len(labelled),
        "dense_images": len(dense),
        "objects": {name: objects[name] for name in names.values()},
        **{flag: sum(bool(a[flag]) for a in coco["annotations"]) for flag in flags},
        "sizes": {
            name: int(((sizes >= low) & (sizes < high)).sum())
            for name, (low, high) in _BINS.items()
        },
        "size_quantiles": [round(float(value), 2) for value in quantiles],
    }


def _write_scene(folder: Path, config: TinySceneConfig, seed: int, index: int) -> None:
    scene = draw_tiny_scene(config, seed, index)
    image, labels = scene_files(folder, _LABELS, index)
    write_image(image, scene.image, SCENE_PNG)
    write_atomically(labels, json.dumps(_to_record(scene, image.name)))


def _to_record(scene: TinyScene, file_name: str) -> dict:
    """One scene as its image entry and annotations, without the ids."""
    height, width = scene.image.shape[:2]
    annotations = []
    for item in scene.objects:
        x0, y0, x1, y1 = np.round(item.box, 2).tolist()
        across, down = round(x1 - x0, 2), round(y1 - y0, 2)
        annotations.append(
            {
                "category_id": TINY_CATEGORIES.index(item.category) + 1,
                "bbox": [x0, y0, across, down],
                "area": round(across * down, 4),
                "iscrowd": 0,
                "ignore": item.ignore,
                "uncertain": item.uncertain,
                "logo": item.logo,
                "in_dense_image": scene.dense,
            }
        )
    image = {"file_name": file_name, "width": width, "height": height, "theme": scene.theme}
    return {"image": image, "annotations": annotations}


def _gather(folder: Path, num_images: int) -> dict:
    """Write the COCO file of all scenes, and count what it holds."""
    images, annotations = [], []
    for index in range(num_images):
        path = scene_files(folder, _LABELS, index)[-1]
        record = json.loads(path.read_text(encoding="utf-8"))
        images.append({"id": index + 1, **record["image"]})
        for annotation in record["annotations"]:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": index + 1, **annotation})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(TINY_CATEGORIES)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    write_atomically(folder / ANNOTATION_NAME, json.dumps(coco) + "\n")
    return describe_annotations(coco)
