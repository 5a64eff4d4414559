"""What may be named as an input of detection: images, videos, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from rsd2.io.image_io import IMAGE_EXTENSIONS

from .prediction_files import output_names
from .video_frames import is_video, list_numbered_images


def expand_image_inputs(inputs: Sequence[str]) -> tuple[list[Path], int]:
    """Find the images that the command line asks for.

    Args:
        inputs: files (any name), folders (their images, not those of subfolders), or patterns of
            the shell.

    Returns:
        The images, each once, in the order given and sorted by name within a folder or pattern;
        and the number of other files in the folders.

    Raises:
        FileNotFoundError: an input matches nothing.
    """
    images: dict[Path, None] = {}
    num_others = 0
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
            found = [p for p in files if p.suffix.lower() in IMAGE_EXTENSIONS]
            num_others += len(files) - len(found)
        else:
            found = [path] if path.is_file() else sorted(map(Path, glob.glob(name, recursive=True)))
            found = [p for p in found if p.is_file()]
        if not found:
            raise FileNotFoundError(
                f"no image at {name}; give an image, a folder that holds "
                f"{', '.join(IMAGE_EXTENSIONS)}, or a quoted pattern like 'images/*.png'"
            )
        images.update(dict.fromkeys(found))
    return list(images), num_others


def check_targets(images: Sequence[Path], folder: Path) -> None:
    """Refuse to replace an input by a result.

    Args:
        images: paths of the inputs.
        folder: of the results.

    Raises:
        ValueError: an image would be replaced by its own or another drawing.
    """
    targets = {(folder / f"{name}.png").resolve() for name in output_names(images)}
    for path in images:
        if path.resolve() in targets:
            raise ValueError(f"the drawings would replace {path}; choose another --output")


def find_videos(inputs: Sequence[str]) -> list[Path]:
    """Find the videos that a command line asks for.

    Args:
        inputs: video files, folders that hold the frames of one video, or patterns of the shell.

    Returns:
        each once, in the order given and sorted by name within a pattern.

    Raises:
        FileNotFoundError: an input matches nothing, or a folder holds no frame.
        ValueError: a file is no video, neither by its name nor by its content.
    """
    videos: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        found = [path] if path.exists() else sorted(map(Path, glob.glob(name, recursive=True)))
        if not found:
            raise FileNotFoundError(f"there is no video {name}; correct --input")
        for video in found:
            if video.is_dir() and not list_numbered_images(video):
                raise FileNotFoundError(
                    f"folder {video} holds no frame ({', '.join(IMAGE_EXTENSIONS)}); give the "
                    "folder of the frames itself"
                )
            if video.is_file() and not is_video(video):
                raise ValueError(
                    f"{video} is no video, neither by its name nor for OpenCV; this config needs "
                    "videos: give a video file, or a folder with the frames of one"
                )
            videos[video] = None
    return list(videos)
