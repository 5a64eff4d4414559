"""Every pixel format has one meaning, and broken files are named."""

import logging
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from rsd2.io import image_io
from rsd2.io.image_io import read_image, read_image_size, write_image


@pytest.fixture(autouse=True)
def _nothing_was_said_yet(monkeypatch):
    monkeypatch.setattr(image_io, "_notices", image_io._Notices())


def _ramp(dtype=np.uint8, scale=1):
    return (np.arange(6 * 8).reshape(6, 8) * scale).astype(dtype)


def test_rgb_and_bgr(tmp_path):
    pixels = np.stack([_ramp(), _ramp() + 50, _ramp() + 100], axis=2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == pixels).all()
    assert (read_image(tmp_path / "a.png", "BGR") == pixels[:, :, ::-1]).all()
    assert read_image_size(tmp_path / "a.png") == (6, 8)
    with pytest.raises(ValueError, match="image_format"):
        read_image(tmp_path / "a.png", "rgb")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_is_repeated(tmp_path, suffix):
    Image.fromarray(_ramp()).save(tmp_path / f"a{suffix}")
    pixels = read_image(tmp_path / f"a{suffix}")
    assert pixels.shape == (6, 8, 3) and pixels.flags.writeable
    assert (pixels == _ramp()[:, :, None]).all()


def test_one_bit_palette_and_alpha(tmp_path):
    Image.fromarray(_ramp() % 2 == 0).save(tmp_path / "bit.png")
    assert set(np.unique(read_image(tmp_path / "bit.png"))) == {0, 255}
    palette = Image.fromarray(_ramp() % 3).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[0, 1].tolist() == [40, 50, 60]
    rgba = np.dstack([np.full((6, 8, 3), 200, np.uint8), np.zeros((6, 8), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert (read_image(tmp_path / "alpha.png") == 200).all(), "transparent pixels keep their colour"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_the_high_byte(tmp_path, suffix):
    values = _ramp(np.uint16, 1000)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert (read_image(tmp_path / f"a{suffix}")[:, :, 0] == values // 256).all()


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(_ramp(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif.*floating-point"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8])
def test_exif_orientation_is_ignored_and_said_or_obeyed(tmp_path, caplog, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Flat colours survive the compression of JPEG: the left half is dark, the right half bright.
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, 16:] = 200
    Image.fromarray(stored).save(path, exif=exif)

    assert read_image_size(path) == read_image(path).shape[:2] == (16, 32)
    assert abs(read_image(path).astype(int) - stored).max() < 3
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == (orientation > 1), "once for the file, however often it is read"
    assert all(f"a{suffix} has EXIF orientation {orientation}" in text for text in said)

    # The number names the turn that shows the picture upright: counter-clockwise quarter turns.
    upright = np.rot90(stored, {3: 2, 6: 3, 8: 1}.get(orientation, 0))
    pixels = read_image(path, exif="obey")
    assert read_image_size(path, exif="obey") == pixels.shape[:2] == upright.shape[:2]
    assert abs(pixels.astype(int) - upright).max() < 3
    with pytest.raises(ValueError, match="'ignore' or 'obey'"):
        read_image(path, exif="turn")


@pytest.mark.parametrize("exif", ["ignore", "obey"])
def test_the_orientation_of_a_tiff_belongs_to_its_pixels(tmp_path, caplog, exif):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    Image.fromarray(np.dstack([_ramp()] * 3)).save(tmp_path / "a.tif", tiffinfo=tags)
    pixels = read_image(tmp_path / "a.tif", exif=exif)
    assert (pixels == np.rot90(np.dstack([_ramp()] * 3), 3)).all()
    assert read_image_size(tmp_path / "a.tif", exif) == pixels.shape[:2] == (8, 6)
    assert not caplog.records


def test_the_header_of_a_broken_png_is_read_without_its_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65535, (64, 64), dtype=np.uint16)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert read_image_size(tmp_path / "a.png") == (64, 64)
    with pytest.raises(ValueError, match=r"a\.png.*download"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_image_size])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_sixteen_are_counted_and_said(tmp_path, caplog, suffix, read):
    for number in range(12):
        values = np.array([[100 + number, 2047]], np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}{suffix}")
        read(tmp_path / f"{number}{suffix}")
        read(tmp_path / f"{number}{suffix}")
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2, "the first and the tenth file"
    assert f"0{suffix} has 16-bit values from 100 to 2047" in said[0] and "-scale" in said[0]
    assert "0 to 7 of 255" in said[0] and "concerns 10 images" in said[1]


def test_sixteen_bits_that_are_used_are_no_matter(tmp_path, caplog):
    for name, high in (("bright", 1 << 14), ("empty", 0)):
        Image.fromarray(np.array([[0, high]], np.uint16)).save(tmp_path / f"{name}.png")
        read_image_size(tmp_path / f"{name}.png")
        read_image(tmp_path / f"{name}.png")
    assert not caplog.records


def _write_tiff(path, bits, sample_format, bands, planar):
    """A TIFF of zeros with the tags that a raster of this kind has; Pillow writes no such files."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[258] = 8, 6, (bits,) * bands
    tags[259], tags[262], tags[277], tags[278] = 1, 2 if bands >= 3 else 1, bands, 6
    tags[284], tags[339] = 2 if planar else 1, (sample_format,) * bands
    if bands == 4:
        tags[338] = 2  # the fourth is an alpha channel
    band = 8 * 6 * bits // 8
    # Pillow adds where the directory ends, and there the pixels follow.
    tags[273] = tuple(range(0, band * bands, band)) if planar else 0
    tags[279] = (band,) * bands if planar else band * bands
    with path.open("wb") as stream:
        tags.save(stream)
        stream.write(bytes(band * bands))


@pytest.mark.parametrize(
    "bits, sample_format, bands, planar, kind",
    [
        (32, 3, 1, False, "1 x 32-bit floating-point"),
        (32, 3, 3, False, "3 x 32-bit floating-point"),
        (16, 1, 3, False, "3 x 16-bit unsigned"),
        (16, 1, 3, True, "3 x 16-bit unsigned bands in planar layout"),
        (16, 1, 4, False, "4 x 16-bit unsigned"),
        (16, 2, 4, True, "4 x 16-bit signed bands in planar layout"),
        (8, 1, 8, False, "8 x 8-bit unsigned"),
        (64, 6, 1, False, "1 x 64-bit complex"),
    ],
)
def test_the_header_of_a_tiff_tells_what_cannot_be_read(
    tmp_path, bits, sample_format, bands, planar, kind
):
    _write_tiff(tmp_path / "a.tif", bits, sample_format, bands, planar)
    for read in (read_image, read_image_size):
        with pytest.raises(ValueError, match=rf"a\.tif is a TIFF with {kind}.*gdal_translate"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("bands, planar", [(1, False), (3, False), (3, True), (4, True)])
def test_tiffs_of_eight_bits_are_read_in_either_layout(tmp_path, bands, planar):
    _write_tiff(tmp_path / "a.tif", 8, 1, bands, planar)
    assert read_image_size(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape[:2] == (6, 8)


def test_a_tiff_that_ends_within_its_header_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II\x2a\x00\x08\x00")
    with pytest.raises(ValueError, match=r"a\.tif: .*header.*download"):
        read_image_size(tmp_path / "a.tif")


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert abs(read_image(tmp_path / "a.jpg")[3, 3].astype(int) - [255, 0, 0]).max() < 5


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_and_foreign_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_image_size(path) == (64, 64), "the header is whole"
    with pytest.raises(ValueError, match=f"a{suffix}.*download"):
        read_image(path)
    path.write_bytes(b"<html>404</html>")
    for read in (read_image, read_image_size):
        with pytest.raises(ValueError, match=f"a{suffix}.*download"):
            read(path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.png")


def test_images_beyond_pillows_limit_are_read(tmp_path, monkeypatch):
    Image.fromarray(_ramp()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert read_image_size(tmp_path / "a.png") == (6, 8)
    assert read_image(tmp_path / "a.png").shape == (6, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 4


def test_images_are_written_whole_in_the_format_of_their_suffix(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", pixels)
    assert (read_image(tmp_path / "a.png") == pixels).all()
    write_image(tmp_path / "b.jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 1))
    write_image(tmp_path / "c.jpg", pixels)
    sizes = [(tmp_path / name).stat().st_size for name in ("b.jpg", "c.jpg")]
    assert sizes[0] < sizes[1] and Image.open(tmp_path / "c.jpg").format == "JPEG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.jpg", "c.jpg"]


def test_the_limit_stays_lifted_while_any_thread_reads(tmp_path, monkeypatch):
    for number in range(8):
        Image.fromarray(_ramp()).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(read_image_size, [tmp_path / f"{n % 8}.png" for n in range(2000)]))
    assert sizes == [(6, 8)] * 2000
    assert Image.MAX_IMAGE_PIXELS == 4, "the first to come lifted it, the last to leave restores it"
