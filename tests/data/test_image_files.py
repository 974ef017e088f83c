"""Image files as people have them: rotated, of any mode and size, damaged."""

import struct
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import SIZE, folder, picture, save, two_classes, zipped
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data.datasets import decode
from fewshot.data.folders import ImageFiles
from fewshot.data.images import Reading, read

# -------------------------------------------------------------------------------- what it gives


def as_saved(path: Path, image: Image.Image, **options: object) -> NDArray[np.uint8]:
    """The image saved beside another class, then read by the data set at its own size."""
    save(path / "b" / "1.png")
    (path / "a").mkdir()
    image.save(path / "a" / f"1.{options.pop('suffix', 'png')}", **options)
    return folder(path)[0]


def test_the_exif_orientation_is_applied(tmp_path: Path):
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when shown
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    np.testing.assert_array_equal(as_saved(tmp_path, stored, exif=exif), upright)


RGB = Image.fromarray(picture())


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "1", "PA"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path):
    image = RGB.convert("P").convert(mode) if mode == "PA" else RGB.convert(mode)
    suffix = "tif" if mode == "PA" else "png"
    got = as_saved(tmp_path, image, suffix=suffix)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path: Path):
    # One colour, which JPEG keeps; 255 is no ink once inverted.
    image = Image.new("RGB", (SIZE, SIZE), (200, 100, 50)).convert("CMYK")
    got = as_saved(tmp_path, image, suffix="jpg", quality=100)
    np.testing.assert_allclose(got, np.full((SIZE, SIZE, 3), (200, 100, 50)), atol=4)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path):
    grey = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 1000
    got = as_saved(tmp_path, Image.fromarray(grey))
    np.testing.assert_allclose(got[..., 0], grey / 257, atol=1.0)


@pytest.mark.parametrize("sides", [(16, 16), (16, 128)])
def test_a_gradient_that_is_scaled_up_has_no_plateaus(tmp_path: Path, sides: tuple[int, int]):
    width, height = sides
    ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    scaled = read(tmp_path / "ramp.png", (64, 64, 1)).image[32, 4:-4, 0].astype(int)
    assert (np.diff(scaled) > 0).all()


def test_an_image_is_scaled_to_size_by_averaging(tmp_path: Path):
    large = picture(size=4 * SIZE)
    got = as_saved(tmp_path, Image.fromarray(large))
    mean = large.reshape(SIZE, 4, SIZE, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(got, mean, atol=1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_averaged_too(turned: bool, tmp_path: Path):
    smooth = Image.fromarray(picture()).resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    got = as_saved(tmp_path, smooth, suffix="jpg", quality=95, exif=exif).astype(int)
    upright = smooth.rotate(-90, expand=True) if turned else smooth
    exact = np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BOX))
    assert np.abs(got - exact).mean() < 2.5  # JPEG's own loss with it
    assert np.abs(got - exact).max() < 12


def test_a_file_larger_than_its_pixels_can_be_is_not_read_to_its_end(tmp_path: Path):
    root = two_classes(tmp_path)
    with (root / "a" / "2.png").open("wb") as file:
        file.write(header(9, 9, "png"))
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"a/2\.png: more than .* bytes .*max_pixels"):
        _ = folder(root, max_pixels=1000)[1]


@pytest.mark.parametrize("shape", [(3, 31), (31, 3), (1, 1)])
def test_every_image_has_the_asked_for_shape(shape: tuple[int, int], tmp_path: Path):
    assert as_saved(tmp_path, Image.new("RGB", shape)).shape == (SIZE, SIZE, 3)


# ------------------------------------------------------------------------- what is not readable


def header(width: int, height: int, kind: str) -> bytes:
    """A PNG or BMP file that claims a size and holds no pixels."""
    if kind == "bmp":
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 0) + b"IDAT"
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        + struct.pack(">I", zlib.crc32(chunk)) + data + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


def jpeg() -> bytes:
    file = BytesIO()
    Image.fromarray(picture(size=64)).save(file, "JPEG")
    return file.getvalue()


def broken_png() -> bytes:
    """A PNG file whose second chunk of pixels is no chunk."""
    file = BytesIO()
    Image.fromarray(picture(size=20)).save(file, "PNG")
    content = file.getvalue()
    start = content.index(b"IDAT") - 4
    half = struct.unpack(">I", content[start : start + 4])[0] // 2
    data = content[start + 4 : start + 8 + half]
    chunk = struct.pack(">I", half) + data + struct.pack(">I", zlib.crc32(data))
    return content[:start] + chunk + struct.pack(">I", 5) + b"\1\2\3\4" + bytes(30)


BAD = {
    "zero.png": b"",
    "broken.png": broken_png(),
    "cut.jpg": jpeg()[: len(jpeg()) // 2],
    "text.jpg": b"this is no image",
    "huge.png": header(40_000, 40_000, "png"),
    "huge.bmp": header(40_000, 40_000, "bmp"),
    "large.bmp": header(9_000, 9_000, "bmp"),
}


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named(name: str, pack: bool, tmp_path: Path):
    root = two_classes(tmp_path / "root")
    (root / "a" / name).write_bytes(BAD[name])
    dataset = folder(zipped(root, tmp_path / "images.zip") if pack else root)
    with pytest.raises(DataError) as caught:
        decode(dataset)
    assert f"a/{name}" in str(caught.value)
    assert "1.png" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path):
    root = two_classes(tmp_path)
    (root / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        _ = folder(root)[0]


@pytest.mark.parametrize("name", ["huge.png", "huge.bmp", "large.bmp"])
def test_a_gigantic_image_is_refused_for_its_size_before_its_pixels_are_read(
    name: str, tmp_path: Path
):
    root = two_classes(tmp_path)
    (root / "a" / name).write_bytes(BAD[name])
    with pytest.raises(DataError, match="pixels"):  # not "truncated": there are no pixels to read
        decode(folder(root))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 100_000))
def test_max_pixels_is_the_limit(width: int, height: int, limit: int):
    dataset = ImageFiles(
        [Bytes(header(width, height, "png"))], np.array([0]), ("a",), 8, Reading(limit)
    )
    with pytest.raises(DataError) as caught:
        _ = dataset[0]
    assert (f"max_pixels {limit}" in str(caught.value)) == (width * height > limit)


class Bytes:
    """A file in memory, with as much of a path as the data set asks for."""

    name = "memory.png"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, mode: str) -> BytesIO:
        assert mode == "rb"
        return BytesIO(self.content)

    def __str__(self) -> str:
        return self.name


def encoded(kind: str) -> bytes:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    Image.fromarray(picture(size=20)).save(file, kind, **extra)
    return file.getvalue()


KINDS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")}


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_an_image_or_a_data_error_that_names_it(kind: str, data: st.DataObject):
    content = bytearray(KINDS[kind])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        content[place] = value
    end = data.draw(st.just(len(content)) | places)
    dataset = ImageFiles([Bytes(bytes(content[:end]))], np.array([0]), ("a",), SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        try:
            image = dataset[0]
        except DataError as error:
            assert "memory.png" in str(error)  # noqa: PT017
        else:
            assert image.shape == (SIZE, SIZE, 3)


def test_a_damaged_zip_file_is_a_data_error_that_names_the_image(tmp_path: Path):
    root = two_classes(tmp_path / "root")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name in ("a/1.png", "b/1.png"):
                archive.write(root / name, name)
            start = archive.getinfo("a/1.png").header_offset + 30 + len("a/1.png")
        content = bytearray(path.read_bytes())
        for place in range(start, start + archive.getinfo("a/1.png").compress_size):
            content[place] ^= 0xFF if place > start + 50 or method == zipfile.ZIP_DEFLATED else 0
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a/1\.png"):
            decode(folder(path))


def test_a_file_that_went_away_is_a_data_error_that_names_it(tmp_path: Path):
    dataset = folder(two_classes(tmp_path))
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png"):
        _ = dataset[0]


@pytest.mark.parametrize("count", [1, 5, 6, 9])
def test_up_to_five_bad_files_are_named_and_the_rest_counted(count: int, tmp_path: Path):
    root = two_classes(tmp_path)
    for i in range(count):
        (root / "b" / f"bad{i}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        decode(folder(root))
    message = str(caught.value)
    assert [f"bad{i}.png" in message for i in range(count)] == [i < 5 for i in range(count)]
    assert (f"{count - 5} more" in message) == (count > 5)
