"""Writes synthetic scenes as a DOTA folder: images, label files and a record of the parameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.folder_run import FolderRun, FolderTakenError, claim_folder
from rsd2.io.image_io import write_image

from .scenes.scene import Scene, SceneConfig, draw_scene

RECORD_NAME = "scenes.json"
SCENE_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
)
"""Grain does not compress: the run-length strategy gives the same size in less time."""

_LABELS = "labelTxt/{}.txt"
METRES_PER_UNIT = 0.33
"""Of the ground that a scene shows; cars are then 4 to 5 m long."""


def write_dota_scenes(
    folder: str | Path,
    num_images: int,
    config: SceneConfig,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Write scenes as a folder in DOTA's format, or finish a folder that was begun.

    The folder gets ``images/S000000.png``, ``labelTxt/S000000.txt`` and ``scenes.json`` (the
    parameters, class names, objects per class). Every file is written under a temporary name first,
    and the label file last, so that it stands for a complete scene; complete scenes are kept.

    Args:
        folder: to write to; made if it is missing.
        num_images: of the finished folder, >= 1; a finished folder may be enlarged.
        config: what the scenes look like.
        seed: of the set, >= 0.
        num_workers: processes that draw; 0 draws in this one. The files do not depend on it. With
            more than 0, a script must call this under ``if __name__ == "__main__"``.
        progress: show a progress bar.
        shard: (rank, number of processes) when several processes, on one or many machines that
            share the folder, draw one set: each draws its part, the last one counts the objects.

    Returns:
        The folder.

    Raises:
        ValueError: if a number is out of range.
        FolderTakenError: if the folder holds scenes of other parameters, or files of another
            origin.
    """
    folder = Path(folder)
    head = {"parameters": {**config.to_dict(), "seed": seed}, "classes": list(SYNTHETIC_CLASSES)}
    files = partial(scene_files, folder, _LABELS)
    work = partial(_write_scene, folder, config, seed)
    gather = partial(_count, folder, num_images)
    scenes = NumberedFolder(
        folder / RECORD_NAME, head, "synthetic scenes", num_images, files, work, gather
    )
    scenes.finish(num_workers, progress, shard)
    return folder


def scene_files(folder: Path, labels: str, index: int) -> list[Path]:
    """Return the files that make a scene complete.

    Args:
        folder: root of the folder.
        labels: path of label files, relative to the folder, with ``{}`` for the name of the scene.
        index: index of the scene.

    Returns:
        the image and the label file.
    """
    name = scene_name(index)
    return [folder / "images" / f"{name}.png", folder / labels.format(name)]


@dataclass(frozen=True)
class NumberedFolder:
    """A folder of scenes or videos with numbers from 0.

    Attributes:
        record: JSON file in the folder, made if missing. It gets ``head`` and ``complete``.
        head: ``parameters`` (with ``seed``), compared with those of the folder, and more.
        holds: what lies in the folder, in the plural, for messages.
        size: scenes or videos of the finished folder, >= 1.
        files: files and folders of one number. It is complete when all are there; the last one
            alone tells how many are in the folder.
        work: makes the files of one number, the last one last; sent to other processes.
        gather: called when all are complete, those of other processes too; writes whatever the
            folder has as a whole, and returns more values for the record.
    """

    record: Path
    head: dict
    holds: str
    size: int
    files: Callable[[int], Sequence[Path]]
    work: Callable[[int], None]
    gather: Callable[[], dict]

    def finish(self, num_workers: int, progress: bool, shard: tuple[int, int]) -> None:
        """Draw what is missing of one process's part.

        Args:
            num_workers: processes that draw; 0 draws in this one.
            progress: show a progress bar.
            shard: (rank, number of processes).

        Raises:
            ValueError: if a number is out of range.
            FolderTakenError: if the folder holds scenes of other parameters, or files of another
                origin.
        """
        self._check(num_workers)
        run = FolderRun(range(self.size), self._is_complete, shard)
        for path in self.files(0):
            make_output_folder(path.parent)
        self._write_record({"complete": False}, shard[0])

        unit = self.holds.split()[-1]
        with _single_thread():
            run.make(
                self.work, title=self.holds, unit=unit, num_workers=num_workers, progress=progress
            )
        if run.is_finished():
            self._write_record({"complete": True, **self.gather()}, shard[0])

    def _check(self, num_workers: int) -> None:
        parameters, folders = self.head["parameters"], [path.parent for path in self.files(0)]
        if self.size < 1 or parameters["seed"] < 0 or num_workers < 0:
            raise ValueError(
                f"the number of {self.holds} must be >= 1, seed >= 0 and num_workers >= 0; got "
                f"{self.size}, {parameters['seed']} and {num_workers}"
            )

        claim_folder(
            self.record.parent,
            self.record,
            parameters,
            holds=self.holds,
            contents=folders,
            section="parameters",
        )
        present = len(list(folders[-1].glob(f"*{self.files(0)[-1].suffix}")))
        if present > self.size:
            raise FolderTakenError(
                f"{folders[-1]} knows {present} {self.holds}, more than the {self.size} asked for; "
                f"choose another folder, delete this one, or ask for at least {present}"
            )

    def _is_complete(self, number: int) -> bool:
        return all(path.exists() for path in self.files(number))

    def _write_record(self, more: dict, rank: int) -> None:
        text = json.dumps({**self.head, **more}, indent=2) + "\n"
        write_atomically(self.record, text, rank)


@contextmanager
def _single_thread() -> Iterator[None]:
    """Keep OpenCV on one thread: on a busy machine its many small tasks wait for each other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def scene_name(index: int) -> str:
    """Return the file stem of a scene.

    Args:
        index: of the scene.

    Returns:
        For example ``S000012``.
    """
    return f"S{index:06d}"


def format_labels(scene: Scene, scale: float) -> str:
    """Return the text of a DOTA label file.

    Args:
        scene: image and objects.
        scale: pixels per scene unit, for the ground sampling distance in the header.

    Returns:
        Two header lines, then one line ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` per object.
    """
    lines = ["imagesource:synthetic", f"gsd:{METRES_PER_UNIT / scale:.4f}"]
    for item in scene.objects:
        numbers = " ".join(f"{value:.2f}" for value in item.poly.reshape(-1))
        lines.append(f"{numbers} {item.name} {item.difficult}")
    return "\n".join(lines) + "\n"


def _write_scene(folder: Path, config: SceneConfig, seed: int, index: int) -> None:
    scene = draw_scene(config, seed, index)
    image, labels = scene_files(folder, _LABELS, index)
    write_image(image, scene.image, SCENE_PNG)
    write_atomically(labels, format_labels(scene, config.scale))


def _count(folder: Path, num_images: int) -> dict:
    objects: Counter[str] = Counter()
    difficult: Counter[str] = Counter()
    empty = 0
    for index in range(num_images):
        text = scene_files(folder, _LABELS, index)[-1].read_text(encoding="utf-8")
        rows = [line.split() for line in text.splitlines()[2:]]
        empty += not rows
        objects.update(row[8] for row in rows)
        difficult.update(row[9] for row in rows)
    return {
        "num_images": num_images,
        "empty_images": empty,
        "objects": {name: objects[name] for name in SYNTHETIC_CLASSES},
        "difficult": {level: difficult[level] for level in ("0", "1", "2")},
    }
