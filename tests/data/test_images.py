"""Images as cameras, microscopes and strangers make them: read as seen, or refused by name."""

import gc
import os
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from faults.images import Content, archives, encoded, images, odd_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data import images as module
from fewshot.data.images import Picture, Reading, decode_images, picture, read

Floats = NDArray[np.float64]

SIZE = 8
SHAPE = (SIZE, SIZE, 3)
RGB = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)

# By orientation: the array that is stored of one that is seen (Exif 2.32, 4.6.4 A).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def seen(content: bytes, reading: Reading = Reading()) -> NDArray[np.uint8]:
    return read(Content(content), SHAPE, reading).image


def refused(content: bytes, reading: Reading = Reading()) -> str:
    with pytest.raises(DataError) as caught:
        seen(content, reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(kind: str, orientation: int):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(seen(encoded(stored, kind, exif=exif)), RGB)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_odd_exif_costs_neither_the_image_nor_its_orientation(kind: str):
    stored = Image.fromarray(np.kron(np.rot90(RGB, 1), np.ones((8, 8, 1), np.uint8)))
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = seen(encoded(stored, kind, **options))
    odd = seen(encoded(stored, kind, exif=odd_exif(6), **options))
    np.testing.assert_allclose(odd, np.rot90(plain, -1).astype(int), atol=1)


@given(st.binary(max_size=80))
@settings(max_examples=50)
def test_any_exif_leaves_an_image(exif: bytes):
    assert seen(encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0" + exif)).shape == SHAPE


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_what_is_no_wanted_format_is_not_opened_whatever_its_name(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n"
    )
    with pytest.raises(DataError, match=f"{name}: not an image of JPEG, PNG"):
        read(tmp_path / name, SHAPE)
    for kind in ("TGA", "ICO", "PCX", "SGI"):
        assert "not an image of" in refused(encoded(Image.fromarray(RGB), kind))


# -------------------------------------------------------------------------- transparency


def transparent(hidden: int) -> dict[str, Image.Image]:
    """Opaque grey at the left; at the right nothing, over a colour that nobody sees."""
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[:, :4] = 255
    grey = np.where(alpha, 100, hidden).astype(np.uint8)
    rgba = np.dstack([grey, grey, grey, alpha])
    indexed = Image.fromarray(np.where(alpha, 1, 0).astype(np.uint8), "P")
    indexed.putpalette([hidden] * 3 + [100] * 3)
    indexed.info["transparency"] = 0
    return {
        "RGBA": Image.fromarray(rgba),
        "LA": Image.fromarray(rgba[..., [0, 3]]),
        "P": indexed,
    }


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "value"), [("white", 255), ("#0a0a0a", 10)])
def test_transparency_is_laid_on_the_background(kind: str, background: str, value: int):
    for hidden in (0, 77, 255):
        image = transparent(hidden)[kind]
        reading = Reading(background=background)
        found = read(Content(encoded(image, "PNG")), SHAPE, reading)
        assert (found.image[:, :4] == 100).all()
        assert (found.image[:, 4:] == value).all()
        assert background in found.notes[0]
        assert (picture(image, SHAPE, reading).image == found.image).all()
    rgba = np.asarray(transparent(0)["RGBA"])
    assert (picture(rgba, SHAPE, reading).image[:, 4:] == value).all()


# By name: what is asked of the pixels at a distance from a target's middle, in target pixels.
KERNELS: dict[str, Callable[[Floats], Floats]] = {
    "area": lambda x: (x > -0.5) & (x <= 0.5),
    "bilinear": lambda x: np.maximum(0, 1 - abs(x)),
    "bicubic": lambda x: cubic(abs(x)),
}


def cubic(x: Floats) -> Floats:
    """Keys 1981, a = -1/2."""
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


@pytest.mark.parametrize("interpolation", KERNELS)
@given(st.integers(SIZE, 40), st.integers(SIZE, 40))
def test_images_are_scaled_by_the_kernel_of_their_interpolation(interpolation, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)

    def weights(length: int) -> Floats:
        """(SIZE, length), antialiased: the kernel is as wide as what a target pixel covers."""
        middles = (np.arange(length) + 0.5) * SIZE / length
        found = KERNELS[interpolation](middles - np.arange(SIZE)[:, None] - 0.5).astype(float)
        return found / found.sum(axis=1, keepdims=True)

    due = np.einsum("ih,jw,hwc->ijc", weights(height), weights(width), pixels.astype(float))
    found = picture(pixels, SHAPE, Reading(interpolation=interpolation)).image
    assert np.abs(found - np.clip(due, 0, 255)).max() < 4  # it rounds after each axis


def test_a_background_is_a_colour():
    with pytest.raises(ValueError, match="'background' must be a colour"):
        Reading(background="whitish")


# ------------------------------------------------------------------- more than eight bits


@given(st.lists(st.floats(0, 1, width=32), min_size=64, max_size=64))
@settings(max_examples=20)
def test_floats_from_0_to_1_are_scaled(values: list[float]):
    stored = np.array(values, np.float32).reshape(SIZE, SIZE)
    found = seen(encoded(Image.fromarray(stored), "TIFF"))
    np.testing.assert_allclose(found[..., 0], stored.astype(np.float64) * 255, atol=0.5001)


@pytest.mark.parametrize(("most", "full"), [(4095, 4095), (4096, 65535), (65535, 65535)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_twelve_and_sixteen_bits_are_scaled(kind: str, most: int, full: int):
    stored = np.linspace(0, most, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    found = seen(encoded(Image.fromarray(stored), kind))
    np.testing.assert_allclose(found[..., 0], stored * 255.0 / full, atol=0.5001)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.float32([0, 200]), "floats from 0 to 200"),
        (np.float32([-1, 1]), "floats from -1 to 1"),
        (np.float32([np.nan, 1]), "floats from nan"),
        (np.int32([0, 70_000]), "whole numbers from 0 to 70000"),
        (np.int32([-5, 7]), "whole numbers from -5 to 7"),
    ],
)
def test_numbers_of_an_unknown_range_are_refused_by_name(values: NDArray[np.number], said: str):
    assert said in refused(encoded(Image.fromarray(values[None]), "TIFF"))


# ------------------------------------------------------------------------ size and time


def test_a_jpeg_that_is_decoded_small_may_have_five_times_the_pixels():
    image = Image.fromarray(np.kron(RGB, np.ones((25, 25, 1), np.uint8)))  # 200 x 200
    jpeg, png = encoded(image, "JPEG"), encoded(image, "PNG")
    assert seen(jpeg, Reading(8_000)).shape == SHAPE
    assert "200x200 pixels" in refused(jpeg, Reading(7_999))
    assert seen(png, Reading(40_000)).shape == SHAPE
    assert "200x200 pixels" in refused(png, Reading(39_999))
    decoded = read(Content(jpeg), SHAPE)
    assert (decoded.width, decoded.height, decoded.pixels) == (200, 200, 8_000)


def endless_jpeg() -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, is there again and again."""
    content = encoded(Image.new("L", (800, 800)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    tables = content.rindex(b"\xff\xc4")
    scan = content[min(tables, last) : -2]
    return content[:-2] + scan * (400_000 // len(scan)) + content[-2:]


def test_only_max_pixels_limits_the_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # Pillow's own, of the whole process
    for kind in ("JPEG", "PNG", "BMP", "PPM"):
        content = encoded(Image.fromarray(RGB), kind)
        assert seen(content).shape == SHAPE
        assert "more than max_pixels 4" in refused(content, Reading(4))


def test_a_long_file_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "long.png"
    path.write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    os.truncate(path, 1 << 40)  # with a hole, it takes no room
    tracemalloc.start()
    with pytest.raises(DataError, match=r"more than the .* bytes"):
        picture(path, SHAPE)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_decoding_ends_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    monkeypatch.setattr(module, "_SCANS", 1_000_000)
    assert "decoding takes longer" in refused(endless_jpeg())


def test_a_jpeg_of_more_scans_than_a_photo_has_is_refused_before_decoding():
    assert "a JPEG of " in refused(endless_jpeg())
    photo = encoded(Image.new("RGB", (80, 80), "red"), "JPEG", progressive=True)
    assert read(Content(photo), SHAPE).image[0, 0].tolist() == [254, 0, 0]


@pytest.mark.parametrize("form", [bytes, Image.Image, np.ndarray])
def test_a_kept_error_keeps_text_alone(form: type, tmp_path: Path):
    """200 damaged images held 1.8 GB: their errors' tracebacks held their files and pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), "BMP")
    damaged = content[: len(content) // 2]
    if form is bytes:
        given = [Content(damaged) for _ in range(12)]
    elif form is Image.Image:
        given = [Image.open(BytesIO(damaged)) for _ in range(12)]
    else:
        given = [np.zeros((300, 300, 5), np.uint8) for _ in range(12)]
    decode_images(given[:1], SHAPE)
    tracemalloc.start()
    kept = decode_images(given, SHAPE)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(isinstance(each, DataError) and each.__traceback__ is None for each in kept)
    assert held < len(content)


def test_pictures_of_a_batch_have_their_own_background():
    image = transparent(0)["RGBA"]
    (found,) = decode_images([image], SHAPE, Reading(background="black"))
    assert isinstance(found, Picture)
    assert not found.image[:, 4:].any()


def test_a_file_that_may_not_be_looked_at_is_refused_by_name():
    class Closed(type(Path())):  # type: ignore[misc]
        def is_file(self) -> bool:
            raise PermissionError(13, "Permission denied", str(self))

    for path, why in ((Closed("closed/1.png"), "Permission denied"), ("x" * 300, "too long")):
        with pytest.raises(DataError, match=f"{path}: cannot be read: .*{why}"):
            picture(path, SHAPE)


def test_damaged_images_and_archives_are_read_or_refused_in_one_line():
    assert images(60).total() == 60
    assert len([*archives(10)]) == 10
