"""Images: what becomes of each pixel format when read, whole files when written.

Shapes: H, W image height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .files import write_atomically

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Looked for in this order; upper and lower case are equal."""

_REMEDY = "download or convert it again, or remove it from the data set"
_PUT_BACK = "correct the path, put the file back, or remove it from the data set"


@contextmanager
def _large_images_allowed() -> Iterator[None]:
    """Lift Pillow's size limit: DOTA images have up to 8e8 pixels, and are wanted."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Read the size of an image from its header, without decoding pixels.

    An EXIF orientation is ignored, here and in ``read_image``: labels refer to stored pixels.

    Args:
        path: an image in any format that Pillow knows.

    Returns:
        (height, width) in pixels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the header is broken; the message names the file.
    """
    try:
        with _large_images_allowed(), Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image {path}; {_PUT_BACK}.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Cannot read the header of image {path}: {error}; {_REMEDY}.") from error
    return height, width


def read_image(path: str | Path, image_format: str = "RGB") -> np.ndarray:
    """Read an image as three 8-bit channels.

    Grey and 1-bit images are repeated over the channels, palettes are looked up, an alpha channel
    is dropped without blending, of 16-bit values the high byte is kept (a fixed rule, so that all
    tiles of an image look alike; stretch the contrast beforehand if your sensor uses 11 bits).

    Args:
        path: an image in any format that Pillow knows.
        image_format: ``"RGB"`` or ``"BGR"``.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the image is broken or truncated, or holds floating-point or more than
            16-bit numbers; the message names the file.
    """
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}.")
    try:
        with _large_images_allowed(), Image.open(path) as image:
            pixels = _to_rgb8(image, path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image {path}; {_PUT_BACK}.") from None
    except _PixelFormatError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Cannot decode image {path}: {error}; {_REMEDY}.") from error
    return np.ascontiguousarray(pixels[:, :, ::-1]) if image_format == "BGR" else pixels


def write_image(path: str | Path, image_rgb: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write an image, whole or not at all.

    Args:
        path: file whose suffix chooses the format; replaced if it exists.
        image_rgb: (H, W, 3) uint8.
        options: flags and values for OpenCV's encoder; empty for its defaults.

    Raises:
        OSError: if it cannot be encoded or written.
    """
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    written, data = cv2.imencode(Path(path).suffix, bgr, options)
    if not written:
        raise OSError(f"OpenCV cannot encode {path}")
    write_atomically(path, data.tobytes())


class _PixelFormatError(ValueError):
    """An image that is whole, but of a kind with no fixed meaning as 8-bit colour."""


def _to_rgb8(image: Image.Image, path: str | Path) -> np.ndarray:
    """Convert an opened Pillow image to (H, W, 3) uint8."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise _PixelFormatError(
                f"Image {path} has integer values {values.min()} to {values.max()}, not 16 bits; "
                "convert it to 8-bit colour first."
            )
        return np.repeat((values.astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise _PixelFormatError(
            f"Image {path} holds floating-point values; convert it to 8-bit colour first."
        )
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
