"""Every pixel format has one meaning, and broken files are named."""

import cv2
import numpy as np
import pytest
from PIL import Image

from rsd2.io.image_io import read_image, read_image_size, write_image


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


def test_exif_orientation_is_ignored_by_size_and_pixels_alike(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([_ramp()] * 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").shape[:2] == (6, 8)


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
