"""Results of the released video programs (DSFNet, MICML): a MATLAB file for every frame.

A folder holds ``<video>/<frame>.mat``, where ``<frame>`` is the name of the image without ending.
The variable ``A`` has a row x1, y1, x2, y2, score for each detection of the one class, in pixels.

Source: ``testSaveMat.py`` of MICML, which writes them, and ``evaluation.py``, which takes a missing
file for a frame without detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rsd2.evaluation.matching.boxes import BoxDetections
from rsd2.evaluation.records import OutputRecord
from rsd2.io.files import make_output_folder
from rsd2.io.mat_tables import MatTableError, read_mat_table, write_mat_table

_KEY, _COLUMNS = "A", 5

Frame = tuple[str, str]
"""Name of a video, and name of a frame without ending."""


def read_mat_results(folder: str | Path, frames: Mapping[Frame, str]) -> list[OutputRecord]:
    """Read the detections of one class in the frames of videos.

    Args:
        folder: folder of the videos' folders.
        frames: frame -> image id.

    Returns:
        A record for each file.

    Raises:
        FileNotFoundError: the folder holds no such file.
        ValueError: a file is of no known frame, has no table or a number that is not finite; the
            message names the file and the row.
    """
    paths = sorted(Path(folder).glob("*/*.mat"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no <video>/<frame>.mat; give the folder of the videos' folders"
        )

    # All names are compared before the first file is read, of which there may be thousands.
    unknown = [path for path in paths if (path.parent.name, path.stem) not in frames]
    if unknown:
        video, frame = next(iter(frames))
        raise ValueError(
            f"{len(unknown)} of {len(paths)} files in {folder} are of no frame of the dataset, the "
            f"first is {unknown[0]}; a name is like {video}/{frame}.mat: score the split that the "
            "files were made for, or take them away"
        )

    records = []
    for path in paths:
        try:
            table = read_mat_table(path, _KEY, _COLUMNS)
        except MatTableError as error:
            raise ValueError(f"{path}: {error}; write it again") from error
        broken = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(broken):
            raise ValueError(
                f"{path}: row {broken[0] + 1} of {_KEY} has a number that is not finite; take the "
                "row out or write the file again"
            )
        image_id = frames[path.parent.name, path.stem]
        classes = np.zeros(len(table), dtype=np.int64)
        records.append(OutputRecord(image_id, (), table[:, :4], table[:, 4], classes))

    return records


def write_mat_results(
    folder: str | Path, frames: Sequence[Frame], detections: BoxDetections
) -> None:
    """Write a file for each frame, also for those without detections.

    Args:
        folder: folder that gets a folder for each video; existing files are replaced.
        frames: frames in the order of the dataset.
        detections: detections of one class in them.

    Raises:
        OSError: a file cannot be written.
    """
    table = np.column_stack([detections.boxes, detections.scores])
    order = np.argsort(detections.image_index, kind="stable")
    starts = np.searchsorted(detections.image_index[order], np.arange(len(frames) + 1))

    for index, (video, frame) in enumerate(frames):
        make_output_folder(Path(folder) / video)
        rows = table[order[starts[index] : starts[index + 1]]]
        write_mat_table(Path(folder) / video / f"{frame}.mat", _KEY, rows)
