"""Result files of the detections in images: a drawing and a text file each, a JSON for all.

Shapes: D detections of one image, H, W its size.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np
import torch

from rsd2.data.drawing.boxes import class_color, draw_rotated_boxes
from rsd2.io.files import replaced_file, write_atomically
from rsd2.structures import boxes_to_corners

from .sliding_window import ImageDetections

JSON_NAME = "detections.json"


def output_names(images: Sequence[Path]) -> list[str]:
    """Name the results of every image: its stem, with a number if several have the same.

    Args:
        images: paths of the images.

    Returns:
        A name for each, unique also on file systems that ignore case.
    """
    stems = {path.stem.casefold() for path in images}
    taken: set[str] = set()
    names = []

    for path in images:
        name, number = path.stem, 1
        # A numbered name must not take the stem of another image either.
        while name.casefold() in taken or (number > 1 and name.casefold() in stems):
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.casefold())
        names.append(name)

    return names


def name_classes(indices: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Name the classes of detections.

    Args:
        indices: D indices of classes.
        classes: names of all classes; an empty list writes the indices.

    Returns:
        D names.

    Raises:
        ValueError: a class index has no name.
    """
    if classes and len(indices) and not 0 <= min(indices) <= max(indices) < len(classes):
        raise ValueError(
            f"the model found class {max(indices)}, but there are {len(classes)} class "
            "names; name all classes of the model"
        )
    return [classes[index] if classes else str(index) for index in indices]


def format_detections(
    polygons: Sequence[Sequence[float]], labels: Sequence[str], scores: Sequence[float]
) -> str:
    """Write detections as lines ``x1 y1 x2 y2 x3 y3 x4 y4 class score``.

    Args:
        polygons: D polygons of 8 coordinates in pixels.
        labels: D names of classes; their spaces are written as ``_``.
        scores: D scores in [0, 1].

    Returns:
        The text, a line for each detection.
    """
    return "".join(
        f"{' '.join(f'{v:.2f}' for v in polygon)} {label.replace(' ', '_')} {score:.6f}\n"
        for polygon, label, score in zip(polygons, labels, scores)
    )


def encode_drawing(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    scores: Sequence[float],
    classes: Sequence[int],
    suffix: str = ".png",
) -> bytes:
    """Draw detections on an image and encode it.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (D, 5) rotated boxes, pixels and degrees.
        labels: D names of classes.
        scores: D scores in [0, 1].
        classes: D indices of classes, which choose the colours.
        suffix: suffix of the picture's format, with its dot.

    Returns:
        The content of the file.

    Raises:
        ValueError: the format cannot hold so many pixels.
    """
    drawn = draw_rotated_boxes(
        image,
        boxes,
        labels=list(labels),
        scores=list(scores),
        colors=[class_color(index) for index in classes],
    )
    done, encoded = cv2.imencode(suffix, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    if not done:
        size = f"{drawn.shape[1]} x {drawn.shape[0]}"
        raise ValueError(f"a drawing of {size} pixels does not fit into a {suffix} file")
    return encoded.tobytes()


class PredictionWriter:
    """A folder of results: ``<name>.png``, ``<name>.txt``, and ``detections.json`` for all images.

    A line of a text file is ``x1 y1 x2 y2 x3 y3 x4 y4 class score``, as in DOTA's label files but
    for the score: corners clockwise on screen, pixels of the full image, spaces in class names
    written as ``_``. Use it as a context, and end it by :meth:`finish`; every file appears
    complete or not at all, and replaces an earlier one.
    """

    def __init__(
        self, folder: str | Path, classes: Sequence[str] = (), max_drawing_size: int | None = None
    ) -> None:
        """Create the folder.

        Args:
            folder: output folder, created if absent.
            classes: names of the classes; an empty list writes their indices.
            max_drawing_size: greatest longer side of the drawings, pixels; None draws at full size.

        Raises:
            OSError: the folder cannot be created or written to.
        """
        self.folder, self.classes = Path(folder), list(classes)
        self.max_drawing_size = max_drawing_size
        self.num_images = self.num_detections = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        # The detections of all images exist together only on disk.
        self._records = TemporaryFile("w+", encoding="utf-8", dir=self.folder)  # noqa: SIM115

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()

    def add(
        self,
        path: str | Path,
        name: str,
        image: np.ndarray,
        found: ImageDetections,
        seconds: float,
    ) -> None:
        """Write the results of one image.

        Args:
            path: path of the image, for the JSON file.
            name: name of its result files, without extension.
            image: (H, W, 3) uint8 RGB.
            found: detections in the image.
            seconds: duration of the detection.

        Raises:
            OSError: a file cannot be written.
            ValueError: a class index has no name.
        """
        indices = found.classes.tolist()
        labels = name_classes(indices, self.classes)
        polygons = boxes_to_corners(torch.from_numpy(found.boxes)).reshape(-1, 8).tolist()
        scores = found.scores.tolist()
        lines = format_detections(polygons, labels, scores)
        # Drawing and text come first: an error leaves no record of an image without files.
        write_atomically(self.folder / f"{name}.png", self._draw(image, found, labels))
        write_atomically(self.folder / f"{name}.txt", lines)

        detections = [
            {
                "box": [round(value, 3) for value in box],
                "polygon": [round(value, 3) for value in polygon],
                "score": round(score, 6),
                "class": label,
                "class_index": index,
            }
            for box, polygon, score, label, index in zip(
                found.boxes.tolist(), polygons, scores, labels, indices
            )
        ]

        record = {
            "file": str(path),
            "output": name,
            "height": image.shape[0],
            "width": image.shape[1],
            "windows": found.num_windows,
            "seconds": round(seconds, 4),
            "detections": detections,
        }
        self._records.write((",\n" if self.num_images else "") + json.dumps(record))

        self.num_images += 1
        self.num_detections += len(indices)

    def _draw(self, image: np.ndarray, found: ImageDetections, labels: list[str]) -> bytes:
        """Draw the image with its detections as PNG, the best ones labelled first."""
        boxes = found.boxes
        longer = max(image.shape[:2])
        if self.max_drawing_size is not None and longer > self.max_drawing_size:
            scale = self.max_drawing_size / longer
            # Shrunk before drawing, so that lines and captions keep their width.
            size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            boxes = boxes * np.array([scale, scale, scale, scale, 1.0])

        scores, classes = found.scores.tolist(), found.classes.tolist()
        return encode_drawing(image, boxes, labels, scores, classes)

    def finish(
        self, protocol: dict[str, Any], failed: Sequence[tuple[str, str]], complete: bool = True
    ) -> Path:
        """Write ``detections.json``.

        Args:
            protocol: description of how the detections were made; plain values.
            failed: (file, reason) of the images that could not be read.
            complete: False if images are missing for another reason, like an interruption.

        Returns:
            Path of the file.

        Raises:
            OSError: the file cannot be written; an earlier one is then untouched.
        """
        head = {
            "protocol": protocol,
            "classes": self.classes,
            "complete": complete,
            "failed": [{"file": file, "reason": reason} for file, reason in failed],
        }

        path = self.folder / JSON_NAME
        self._records.seek(0)
        with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            # The head without its closing brace; the images follow as a stream, however many
            # there are.
            stream.write(json.dumps(head, indent=1)[:-2] + ',\n "images": [\n')
            shutil.copyfileobj(self._records, stream)
            stream.write("\n ]\n}\n")

        self._records.seek(0, os.SEEK_END)
        return path
