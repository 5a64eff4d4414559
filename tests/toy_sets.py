"""Folders laid out like the real sets of docs/real_data.md, with a few drawn images each.

    python tests/toy_sets.py ROOT hrsc airport sen2ships kit_ais

The images are generated, so that commands for sets that nobody may pass on can be run anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask

from rsd2.commands.make_synthetic import main as synthesize
from rsd2.data.datasets.builtin import _DOTA_TEXT_SETS, _SEN2SHIPS_PORTS

_QUIET = ("--num-workers", "0")


def draw_text_set(name: str, root: Path) -> None:
    """Draw a set of DOTA text, every object of which is of the set's one class.

    Args:
        name: ``hrsc`` or ``airport``.
        root: gets the folder of that name.
    """
    label, splits = _DOTA_TEXT_SETS[name]
    for seed, split in enumerate(splits):
        folder = root / name / split
        draw_scenes(folder, images=3, seed=seed)
        for path in (folder / "labelTxt").iterdir():
            rows = [f"{' '.join(row[:8])} {label} {row[9]}\n" for row in _objects(path)]
            path.write_text("".join(rows))


def draw_sen2ships(root: Path) -> None:
    """Draw ports of 16 bits, whose ships are masks in a COCO file beside each.

    Args:
        root: gets ``sen2ships``.
    """
    import rasterio

    for split, ports in _SEN2SHIPS_PORTS.items():
        drawn, folder = root / "drawn_ports" / split, root / "sen2ships" / split
        draw_scenes(drawn, images=len(ports), seed=len(ports))
        folder.mkdir(parents=True)

        for port, image in zip(ports, sorted((drawn / "images").iterdir())):
            pixels = cv2.imread(str(image)).astype(np.uint16) * 64
            height, width = pixels.shape[:2]
            with rasterio.open(
                folder / f"{port}.tif",
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=3,
                dtype="uint16",
                crs="EPSG:3857",
                transform=rasterio.transform.from_origin(400_000, 5_000_000, 10, 10),
            ) as dataset:
                dataset.write(pixels.transpose(2, 0, 1))

            rows = list(_objects(drawn / "labelTxt" / f"{image.stem}.txt"))
            document = {
                "images": [{"id": 1, "file_name": f"{port}.tif", "width": width, "height": height}],
                "categories": [{"id": 1, "name": "ship"}],
                "annotations": [
                    _mask_annotation(number, np.array(row[:8], dtype=float), height, width)
                    for number, row in enumerate(rows, 1)
                ],
            }
            (folder / f"{port}.json").write_text(json.dumps(document))


def draw_kit_ais(root: Path) -> None:
    """Draw sequences of cars in the folders of KIT AIS.

    Args:
        root: gets ``kit_ais``.
    """
    folder = root / "kit_ais"
    for split in ("train", "test"):
        words = ("--split", split, "--num-images", "1", "--num-frames", "7", "--size", "128", "256")
        words += ("--density", "8")
        assert synthesize(["--kind", "video", "--output", str(folder), *words, *_QUIET]) == 0
        labels = next((folder / "annotations").glob(f"instances_{split}*.json"))
        labels.rename(folder / f"annotations_{split}.json")


def draw_scenes(folder: Path, *, images: int, seed: int) -> None:
    """Draw moored boats as a folder in DOTA's format.

    Args:
        folder: gets ``images`` and ``labelTxt``.
        images: number of images of 192 x 192 pixels.
        seed: seed of the set.
    """
    words = ("--num-images", images, "--size", 192, "--seed", seed, "--empty-fraction", 0)
    words = ("--output", folder, *words, "--themes", "marina", *_QUIET)
    assert synthesize([str(word) for word in words]) == 0


def _objects(path: Path) -> Iterator[list[str]]:
    rows = (line.split() for line in path.read_text().splitlines())
    return (row for row in rows if len(row) == 10)


def _mask_annotation(number: int, corners: np.ndarray, height: int, width: int) -> dict:
    mask = np.zeros((height, width), dtype=np.uint8)
    # Two pixels in the middle at least: an object at the border may lie outside.
    corners = corners.reshape(4, 2)
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    if not mask.any():
        mask[height // 2, width // 2 : width // 2 + 2] = 1

    changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=0))
    counts = np.diff(changes, prepend=0, append=mask.size)
    packed = pycocotools.mask.encode(np.asfortranarray(mask))
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": pycocotools.mask.toBbox(packed).tolist(),
        "segmentation": {"counts": counts.tolist(), "size": [height, width]},
    }


def main(arguments: list[str]) -> int:
    """Draw the sets that the command line names."""
    root, *names = arguments
    for name in names:
        if name == "sen2ships":
            draw_sen2ships(Path(root))
        elif name == "kit_ais":
            draw_kit_ais(Path(root))
        else:
            draw_text_set(name, Path(root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
