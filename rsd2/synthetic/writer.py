"""Writes synthetic scenes as a DOTA folder: images, label files and a record of the parameters."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.io.files import make_output_folder, write_atomically

from .scenes.scene import Scene, SceneConfig, draw_scene

RECORD_NAME = "scenes.json"
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
        FileExistsError: if the folder holds scenes of other parameters, or files of another origin.
    """
    folder = Path(folder)
    record = {"parameters": {**config.to_dict(), "seed": seed}, "classes": list(SYNTHETIC_CLASSES)}
    work = partial(_write_scene, folder, config, seed)
    if finish_folder(folder, record, num_images, work, num_workers, progress, shard):
        record.update(complete=True, **_count(folder, num_images))
        write_atomically(folder / RECORD_NAME, json.dumps(record, indent=2) + "\n")
    return folder


def finish_folder(
    folder: Path,
    record: dict,
    num_images: int,
    work: Callable[[int], None],
    num_workers: int,
    progress: bool,
    shard: tuple[int, int],
    labels: tuple[str, str] = ("labelTxt", ".txt"),
) -> bool:
    """Draw what a folder of scenes lacks of one process's part.

    Args:
        folder: to write to; made if it is missing.
        record: ``parameters`` (with ``seed``) and ``classes``, compared with those of the folder.
        num_images: of the finished folder, >= 1.
        work: writes the image and, last, the label file of one index; sent to other processes.
        num_workers: processes that draw; 0 draws in this one.
        progress: show a progress bar.
        shard: (rank, number of processes).
        labels: folder and extension of the label files.

    Returns:
        True if the whole folder is drawn, the other processes' parts too.

    Raises:
        ValueError: if a number is out of range.
        FileExistsError: if the folder holds scenes of other parameters, or files of another origin.
    """
    rank, world_size = shard
    seed = record["parameters"]["seed"]
    if num_images < 1 or seed < 0 or num_workers < 0 or not 0 <= rank < world_size:
        raise ValueError(
            "num_images must be >= 1, seed >= 0, num_workers >= 0 and 0 <= rank < number of "
            f"processes; got {num_images}, {seed}, {num_workers} and shard {shard}"
        )
    _check_folder(folder, record, num_images, labels)
    for name in ("images", labels[0]):
        make_output_folder(folder / name)
    write_atomically(folder / RECORD_NAME, json.dumps({**record, "complete": False}, indent=2))
    part = range(rank, num_images, world_size)
    missing = [index for index in part if not _is_complete(folder, index, labels)]
    bar = partial(
        tqdm,
        total=len(part),
        initial=len(part) - len(missing),
        desc="scenes",
        unit="image",
        disable=not progress,
    )
    if num_workers == 0 or len(missing) < 2:
        with _single_thread():
            for _ in bar(map(work, missing)):
                pass
    else:
        _write_parallel(work, missing, num_workers, bar)
    return all(_is_complete(folder, index, labels) for index in range(num_images))


@contextmanager
def _single_thread() -> Iterator[None]:
    """Keep OpenCV on one thread: on a busy machine its many small tasks wait for each other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _write_parallel(
    work: Callable[[int], None], indices: list[int], num_workers: int, bar: Callable
) -> None:
    # "spawn": a fork of a process that has used OpenCV's threads may hang. One thread each, because
    # the processes take the cores already.
    context, workers = multiprocessing.get_context("spawn"), min(num_workers, len(indices))
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        for _ in bar(pool.map(work, indices, chunksize=4)):
            pass


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


def _check_folder(folder: Path, record: dict, num_images: int, labels: tuple[str, str]) -> None:
    path = folder / RECORD_NAME
    if not path.exists():
        for name in ("images", labels[0]):
            if (folder / name).is_dir() and any((folder / name).iterdir()):
                raise FileExistsError(
                    f"{folder / name} holds files but {path} is missing, so they may not be "
                    "synthetic scenes; choose an empty folder"
                )
        return
    check_parameters(path, record["parameters"])
    present = len(list((folder / labels[0]).glob(f"S*{labels[1]}")))
    if present > num_images:
        raise FileExistsError(
            f"{folder} holds {present} scenes, more than the {num_images} asked for; choose "
            f"another folder, delete this one, or ask for at least {present}"
        )


def check_parameters(path: Path, wanted: dict) -> None:
    """Refuse a record of scenes that were drawn with other parameters.

    Args:
        path: of the record, which exists.
        wanted: parameters asked for, plain values.

    Raises:
        FileExistsError: if the record is unreadable or its ``parameters`` differ; the message says
            in what.
    """
    folder = path.parent
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parameters = found["parameters"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FileExistsError(
            f"{path} cannot be read as a record of scenes ({error!r}); delete {folder} or choose "
            "another folder"
        ) from error
    wanted = json.loads(json.dumps(wanted))
    different = sorted(
        key for key in {*wanted, *parameters} if wanted.get(key) != parameters.get(key)
    )
    if different:
        details = ", ".join(
            f"{key}: {parameters.get(key)} there, {wanted.get(key)} asked for" for key in different
        )
        raise FileExistsError(
            f"{folder} holds scenes of other parameters ({details}); choose another folder, delete "
            "this one, or ask for its parameters"
        )


def _is_complete(folder: Path, index: int, labels: tuple[str, str]) -> bool:
    name = scene_name(index)
    return (folder / labels[0] / f"{name}{labels[1]}").is_file() and (
        folder / "images" / f"{name}.png"
    ).is_file()


def _write_scene(folder: Path, config: SceneConfig, seed: int, index: int) -> None:
    scene, name = draw_scene(config, seed, index), scene_name(index)
    write_image(folder / "images" / f"{name}.png", scene.image)
    write_atomically(folder / "labelTxt" / f"{name}.txt", format_labels(scene, config.scale))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a PNG file under another name and move it into place.

    Args:
        path: of the file.
        image: (H, W, 3) uint8 RGB.

    Raises:
        RuntimeError: if it cannot be encoded.
    """
    # Grain does not compress: the run-length strategy gives the same size in less time.
    options = (
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
    )
    ok, packed = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise RuntimeError(f"cv2 could not encode {path.name} as PNG")
    write_atomically(path, packed.tobytes())


def _count(folder: Path, num_images: int) -> dict:
    objects, difficult, empty = Counter(), Counter(), 0
    for index in range(num_images):
        text = (folder / "labelTxt" / f"{scene_name(index)}.txt").read_text(encoding="utf-8")
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
