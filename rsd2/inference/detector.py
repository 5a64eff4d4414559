"""A detector for programs: from an image of any size to detections that can be drawn or written.

Shapes: N detections of one image, H, W its size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from rsd2.io.files import write_atomically
from rsd2.io.image_io import read_image
from rsd2.structures import boxes_to_corners

from .image_detector import note_on_windows
from .prediction_files import encode_drawing, format_detections, name_classes
from .sliding_window import Detect, ImageDetections, WindowParameters, detect_in_windows

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Found:
    """The detections in one image; its length is N.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 5) float64 cx, cy, w, h in pixels of the image, angle in degrees,
            counter-clockwise on screen.
        scores: (N,) float64 in [0, 1], decreasing.
        classes: (N,) int64, indices.
        class_names: names of all classes of the model; none if they are unknown.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Found({len(self)} objects in {width} x {height} pixels)"

    @property
    def labels(self) -> list[str]:
        """N names of the classes, or their indices if the classes have no names.

        Raises:
            ValueError: a class index has no name.
        """
        return name_classes(self.classes.tolist(), self.class_names)

    def draw(self, path: str | Path) -> None:
        """Write the image with its detections.

        Args:
            path: path of a PNG or JPEG file, by its suffix; replaced if it exists.

        Raises:
            ValueError: the suffix is that of no known kind of picture.
            OSError: the file cannot be written.
        """
        # Judged before the drawing, which takes seconds for a large image.
        if not cv2.haveImageWriter(str(path)):
            raise ValueError(f"{path} is not the name of a picture; let it end in .png or .jpg")

        scores, classes = self.scores.tolist(), self.classes.tolist()
        suffix = Path(path).suffix
        content = encode_drawing(self.image, self.boxes, self.labels, scores, classes, suffix)
        write_atomically(path, content)

    def to_dota(self, path: str | Path) -> None:
        """Write the detections in the form of DOTA's label files, with a score at each line's end.

        A line is ``x1 y1 x2 y2 x3 y3 x4 y4 class score``: corners clockwise on screen, pixels,
        spaces in class names written as ``_``; the same as the text files of ``rsd2 predict``.

        Args:
            path: path of the text file; replaced if it exists.

        Raises:
            OSError: the file cannot be written.
        """
        polygons = boxes_to_corners(torch.from_numpy(self.boxes)).reshape(-1, 8).tolist()
        write_atomically(path, format_detections(polygons, self.labels, self.scores.tolist()))


class Detector:
    """A trained model as a function from an image of any size to its detections.

    Args:
        detect: the model, from images to their detections.
        parameters: parameters of windows and merging.
        class_names: names of all classes; none if they are unknown.
    """

    def __init__(
        self, detect: Detect, parameters: WindowParameters, class_names: Sequence[str] = ()
    ) -> None:
        self.detect = detect
        self.parameters = parameters
        self.class_names = list(class_names)
        self._is_noted = False

    def __call__(self, image: str | Path | np.ndarray) -> Found:
        """Detect objects in an image, in overlapping windows if it is larger than one.

        Args:
            image: path of a file, or (H, W, 3) uint8 RGB.

        Returns:
            The detections, in pixels of the image.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no image, or the array has another shape or type.
        """
        pixels = read_image(image) if isinstance(image, str | Path) else image
        found = self.find(pixels)
        if found.num_non_finite:
            _logger.warning(
                "%d detections were not finite and are left out: are these the right weights?",
                found.num_non_finite,
            )

        return Found(pixels, found.boxes, found.scores, found.classes, self.class_names)

    def find(self, pixels: np.ndarray) -> ImageDetections:
        """Detect objects in the pixels of an image.

        It logs a warning, once, if objects have other sizes in the windows than in training.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Returns:
            The detections with all counts.

        Raises:
            ValueError: the array has another shape or type.
        """
        found = detect_in_windows(pixels, self.detect, self.parameters)
        if not self._is_noted:
            height, width = pixels.shape[:2]
            note = note_on_windows(self.detect, height, width, self.parameters)
            self._is_noted = bool(note)
            if note:
                _logger.warning("%s", note)
        return found
