"""Reads images of every pixel format by one rule, and writes image files completely or not at all.

The rule: every image becomes three 8-bit channels. Grey and 1-bit images are repeated over the
channels, palettes are looked up, CMYK is converted, a fourth channel is dropped without blending,
and 16-bit grey values keep their high byte. The header of an image shows whether the rule fits, so
the reader refuses others when a dataset is registered and not in the middle of a training. It
ignores an EXIF orientation with a warning, unless it is told to obey; the orientation of a TIFF is
part of how its pixels are decoded.

Shapes: H, W image height and width.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from .files import write_atomically

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of image files in the order of preference; upper and lower case are equal."""

ExifRule = Literal["ignore", "obey"]
"""What a reader does with an EXIF orientation: keep the stored pixels, or turn them upright."""

_REMEDY = "download or convert it again, or remove it from the dataset"
_PUT_BACK = "correct the path, put the file back, or remove it from the dataset"
_TO_BYTES = (
    "convert it to 8-bit colour first, for example by "
    "`gdal_translate -ot Byte -b 1 -b 2 -b 3 -scale LOW HIGH in.tif out.tif`"
)

# A picture of 16 bits that fills less than a quarter of them is nearly black as a high byte.
_DARK_BELOW = 1 << 14
_MOST_SAMPLES = 20  # number of images that are decoded at registration to learn their range
_SAMPLE_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}

_logger = logging.getLogger(__name__)


class _SizeLimit:
    """Lifts Pillow's limit of pixels while any thread reads: DOTA images have up to 8e8 of them.

    Pillow keeps the limit in one global of its module. Threads that each saved and restored it
    would restore a value that another one had just lifted, so the readers are counted: the first
    one lifts the limit and the last one puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._limit: int | None = None

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Keep the limit lifted inside the block, in any thread."""
        with self._lock:
            if self._readers == 0:
                self._limit = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = None
            self._readers += 1

        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0:
                    Image.MAX_IMAGE_PIXELS = self._limit


class _Notices:
    """Warnings, once per file and counted, about steps of a reader that its user may not expect.

    The count is of one process: each worker of a data loader has its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dark: set[str] = set()
        self._turned: set[str] = set()
        self._samples = 0

    def wants_sample(self) -> bool:
        """Tell whether one more image may be decoded just to learn its range."""
        with self._lock:
            self._samples += 1
            return self._samples <= _MOST_SAMPLES

    def dark(self, path: str | Path, low: int, high: int) -> None:
        """Warn that an image of 16 bits becomes nearly black."""
        with self._lock:
            if str(path) in self._dark:
                return
            self._dark.add(str(path))
            count = len(self._dark)

        # The first one is logged at once, then ever fewer: a dataset may hold a hundred thousand.
        if count in (1, 10) or count % 100 == 0:
            _logger.warning(
                "Image %s has 16-bit values from %d to %d. Only their high byte is kept, 0 to %d "
                "of 255, so it is nearly black; %s. So far this concerns %d images.",
                *(path, low, high, high >> 8, _TO_BYTES, count),
            )

    def turned(self, path: str | Path, orientation: int) -> None:
        """Warn that an EXIF orientation is ignored."""
        with self._lock:
            if str(path) in self._turned:
                return
            self._turned.add(str(path))

        _logger.warning(
            "Image %s has EXIF orientation %d, which is ignored: its pixels are used as they are "
            "stored, and labels drawn on the turned picture do not fit them. Turn the file "
            "itself, or use the option that obeys the orientation.",
            *(path, orientation),
        )


_size_limit = _SizeLimit()
_notices = _Notices()


def read_image_size(path: str | Path, exif: ExifRule = "ignore") -> tuple[int, int]:
    """Read the size of an image from its header and judge whether `read_image` can read it.

    Only the first 16-bit images are decoded: a warning says at registration if their range makes
    them nearly black. Another warning names an EXIF orientation that is ignored.

    Args:
        path: an image in any format that Pillow knows.
        exif: ``"ignore"``: the size of the stored pixels, to which labels refer; ``"obey"``: the
            size after the EXIF orientation.

    Returns:
        (height, width) in pixels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the header is broken, or says that `read_image` would refuse the image; the
            message names the file.
    """
    with _opened(path, "read the header of") as image:
        width, height = image.size
        orientation = _judged_orientation(image, path, exif)
        if exif == "obey" and orientation >= 5:  # a quarter turn, with or without a mirror
            width, height = height, width
        if image.mode.startswith("I") and _notices.wants_sample():
            # A broken file is reported where its pixels are read.
            with suppress(OSError, ValueError):
                _warn_if_dark(image, path)
    return height, width


def read_image_kind(path: str | Path) -> tuple[str, int]:
    """Read from the header of an image how it stores its pixels.

    Args:
        path: an image in any format that Pillow knows.

    Returns:
        the mode in Pillow's words, ``"RGB"``, ``"RGBA"``, ``"I;16"`` and so on, with ``"+A"``
        behind it where a palette or a colour stands for transparency; the EXIF orientation, 1
        to 8, which is 1 for a TIFF, whose pixels are turned when they are decoded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see `read_image_size`.
    """
    with _opened(path, "read the header of") as image:
        mode = f"{image.mode}+A" if "transparency" in image.info else image.mode
        return mode, _orientation(image)


def read_image(
    path: str | Path, image_format: str = "RGB", exif: ExifRule = "ignore"
) -> np.ndarray:
    """Read an image as three 8-bit channels, by the rule of this module.

    16-bit values keep their high byte, so that all tiles of an image look alike. A warning gives
    the range if the result is nearly black, as it is for sensors of 11 or 12 bits.

    Args:
        path: an image in any format that Pillow knows.
        image_format: ``"RGB"`` or ``"BGR"``.
        exif: ``"ignore"``: the stored pixels, to which labels refer, and a warning if an EXIF
            orientation says otherwise; ``"obey"``: the picture turned upright.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the image is broken or truncated, or of a kind that has no fixed meaning as
            8-bit colour; the message names the file and the reason.
    """
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}.")

    with _opened(path, "decode") as image:
        orientation = _judged_orientation(image, path, exif)
        if exif == "obey" and orientation != 1:
            image = ImageOps.exif_transpose(image)
        pixels = _to_rgb8(image, path)

    return np.ascontiguousarray(pixels[:, :, ::-1]) if image_format == "BGR" else pixels


def write_image(path: str | Path, image_rgb: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write an image file completely or not at all.

    Args:
        path: file whose suffix chooses the format; replaced if it exists.
        image_rgb: (H, W, 3) uint8.
        options: flags and values for OpenCV's encoder; empty for its defaults.

    Raises:
        OSError: if the image cannot be encoded or written.
    """
    # OpenCV writes its channels as blue, green, red.
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    written, data = cv2.imencode(Path(path).suffix, bgr, options)
    if not written:
        raise OSError(f"OpenCV cannot encode {path}")
    write_atomically(path, data.tobytes())


class _PixelFormatError(ValueError):
    """An image that is whole, but of a kind with no fixed meaning as 8-bit colour."""


@contextmanager
def _opened(path: str | Path, action: str) -> Iterator[Image.Image]:
    """Open an image whose header promises 8-bit colour; name the file in every error."""
    try:
        with _size_limit.lifted(), Path(path).open("rb") as stream:
            _check_tiff_header(stream, path)
            with Image.open(stream) as image:
                if image.mode == "F":
                    raise _PixelFormatError(
                        f"Image {path} holds floating-point values; {_TO_BYTES}."
                    )
                yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image {path}; {_PUT_BACK}.") from None
    except _PixelFormatError:
        raise
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        reason = "it is of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"Cannot {action} image {path}: {reason}; {_REMEDY}.") from error


def _check_tiff_header(stream: BinaryIO, path: str | Path) -> None:
    """Reject a TIFF that Pillow cannot read or misreads, with the true reason.

    Pillow does not identify most TIFFs of more than 8 bits and several bands, which sounds like a
    broken file, and of planar 16-bit bands it reads the first one alone.
    """
    prefix = stream.read(16)
    stream.seek(0)
    is_big = prefix.startswith((b"II\x2b\x00", b"MM\x00\x2b"))
    if not is_big and not prefix.startswith((b"II\x2a\x00", b"MM\x00\x2a")):
        return

    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(prefix if is_big else prefix[:8])
        stream.seek(directory.next)
        directory.load(stream)
    except struct.error as error:
        raise OSError("the file ends within its header") from error
    finally:
        stream.seek(0)

    bands = int(directory.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    bits = max(directory.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    kind = _SAMPLE_KINDS.get(max(directory.get(TiffImagePlugin.SAMPLEFORMAT, (1,))), "unknown")
    is_planar = directory.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    is_raw = directory.get(TiffImagePlugin.COMPRESSION, 1) == 1

    # Pillow misreads or cannot open each combination that makes this False.
    whole_numbers = kind in ("unsigned", "signed")
    fits = whole_numbers and (bands == 1 if bits > 8 else bands <= 4)
    if bits == 16 and is_planar and is_raw:
        fits = False
    if bits <= 8 and bands == 2 and is_planar:
        fits = False
    if not fits:
        layout = " in planar layout" if is_planar else ""
        raise _PixelFormatError(
            f"Image {path} is a TIFF with {bands} x {bits}-bit {kind} bands{layout}, which have no "
            f"fixed meaning as 8-bit colour; {_TO_BYTES}."
        )


def _judged_orientation(image: Image.Image, path: str | Path, exif: ExifRule) -> int:
    """Return the EXIF orientation, 1 to 8, and warn where it is ignored."""
    if exif not in ("ignore", "obey"):
        raise ValueError(f"exif must be 'ignore' or 'obey', got {exif!r}.")

    orientation = _orientation(image)
    if exif == "ignore" and orientation != 1:
        _notices.turned(path, orientation)
    return orientation


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8."""
    # Pillow turns every TIFF upright itself. Asked for EXIF data, a PNG without any decodes all its
    # pixels.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # 0 and numbers without meaning are found in the wild.
    return orientation if orientation in range(2, 9) else 1


def _warn_if_dark(image: Image.Image, path: str | Path) -> None:
    """Warn if the high byte of an image of 16 bits carries hardly any information."""
    values = np.asarray(image)
    if values.size and 0 < values.max() < _DARK_BELOW:
        _notices.dark(path, int(values.min()), int(values.max()))


def _to_rgb8(image: Image.Image, path: str | Path) -> np.ndarray:
    """Convert an opened Pillow image to (H, W, 3) uint8."""
    # Pillow converts every other mode by the rule already; it would clip 16 bits at 255.
    if not image.mode.startswith("I"):
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))

    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise _PixelFormatError(
            f"Image {path} has integer values {values.min()} to {values.max()}, not 16 bits; "
            f"{_TO_BYTES}."
        )
    _warn_if_dark(image, path)
    # The high byte, not a stretch: a stretch would differ from tile to tile.
    return np.repeat((values.astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
