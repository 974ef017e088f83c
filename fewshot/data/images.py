"""One image of any source, decoded, turned upright and scaled: training and prediction share it."""

import os
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFile, UnidentifiedImageError

from ..core.errors import DataError
from ..core.machine import cores
from ..core.options import option, positive
from ..core.wording import escaped, is_text

Shape = tuple[int, int, int]

Interpolation = Literal["area", "bilinear", "bicubic"]

MAX_PIXELS = 50_000_000

# What is opened, whatever a file's name; Pillow alone would hand PostScript to an interpreter.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")

_RESAMPLINGS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_MODES = {1: "L", 3: "RGB"}  # by channels

_SECONDS = 30.0  # of the processor for one image: the slowest sound ones take a tenth
_SCANS = 100  # of a JPEG, each over all of it; a photo has ten
_BLOCK = 1 << 13  # bytes a decoder gets at once; of a progressive JPEG these may be 400 scans
_DRAFT = 5  # times as many pixels may a JPEG have that is decoded at a half or less
_LARGEST_EXIF = 1 << 16  # bytes; JPEG has room for no more, and tags can repeat them without end

_SCAN = b"\xff\xda"  # what begins one; in the data of an image a zero follows the first byte

# By EXIF orientation: what turns an image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def colour(_: Any, attribute: Any, name: str) -> None:
    """A validator: a colour by name or as #rrggbb, or ValueError."""
    try:
        ImageColor.getrgb(name)
    except (ValueError, AttributeError) as error:
        text = f"'{attribute.name}' must be a colour, as white or #ffffff: {name}"
        raise ValueError(text) from error


@frozen
class Reading:
    """How images are read, wherever they are.

    `max_pixels`: more are refused before they are decoded. `background`: the colour that
    transparent images are laid on, by name or as #rrggbb; ValueError for what is none.
    `interpolation`: how they are scaled; "area": down by area, up by cubics.
    """

    max_pixels: int = option(MAX_PIXELS, "larger images are refused before decoding", positive)
    background: str = option("white", "the colour transparent images are laid on", colour)
    interpolation: Interpolation = option(
        "area", "how images are scaled; area: down by area, up by cubics"
    )


class Decoded(NamedTuple):
    """One image (h, w, c) uint8, the SHA-256 of its file, and the file's own size.

    `pixels`: what counts against `max_pixels`. `notes`: what was done to it that may not be wanted.
    """

    image: NDArray[np.uint8]
    sha256: bytes
    width: int
    height: int
    pixels: int
    notes: tuple[str, ...] = ()


class Picture(NamedTuple):
    """One image (h, w, c) uint8, what it is called and, at any size, what it is known by.

    `digest`: SHA-256 of its file, or of its pixels before they were scaled; None: as they are.
    """

    image: NDArray[np.uint8]
    name: str
    digest: bytes | None = None

    def sha256(self) -> str:
        """Of its file, or else of its pixels, in hexadecimal."""
        return (self.digest or _of_pixels(self.image)).hex()


def picture(image: Any, shape: Shape, reading: Reading = Reading()) -> Picture:
    """An image file, Pillow image, array (h, w[, c]) uint8 or `Picture` at `shape`.

    A file is a path, or anything with `open("rb")`. Arrays of `shape` are taken as they are, all
    other images scaled as in training. Raises DataError, naming the file, for what is no image,
    damaged, of numbers without a known range, or above `reading.max_pixels`, and for a path that is
    no text.
    """
    if isinstance(image, Picture):
        scaled, digest = _of_array(image.image, shape, reading)
        return image._replace(image=scaled, digest=image.digest or digest)
    if isinstance(image, np.ndarray):
        scaled, digest = _of_array(image, shape, reading)
        return Picture(scaled, "array", digest)
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or "image")
        try:
            _pixels(name, image, image.size, reading)
            upright, _ = _upright(image, shape, reading)
            return Picture(to_shape(upright, shape, reading), name, _of_pixels(np.asarray(upright)))
        except Exception as error:
            raise _refused(name, error) from error
    if isinstance(image, str | Path) and not is_text(str(image)):
        raise DataError(f"{escaped(str(image))}: a name that is no text in UTF-8; rename it")
    file = Path(image) if isinstance(image, str) else image
    if isinstance(file, Path):
        try:
            if not file.is_file():
                raise DataError(f"{image}: {'not a file' if file.exists() else 'no such file'}")
        except OSError as error:  # a folder that may not be entered, a name too long
            raise DataError(f"{image}: cannot be read: {error.strerror}") from error
    if not hasattr(file, "open"):
        raise DataError(
            "an image is a path, a Pillow image or an array (h, w, c) uint8, "
            f"not {type(image).__name__}"
        )
    decoded = read(file, shape, reading)
    return Picture(decoded.image, str(image), decoded.sha256)


def decode_images(
    images: Sequence[Any], shape: Shape, reading: Reading = Reading()
) -> list[Picture | DataError]:
    """`picture` of each, on all cores; an error in the place of an image that cannot be used."""

    def attempt(image: Any) -> Picture | DataError:
        try:
            return picture(image, shape, reading)
        except DataError as error:
            return DataError(str(error))  # its traceback would keep the file and its pixels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_pixels decides on size; odd metadata do no harm
        if len(images) == 1:
            return [attempt(images[0])]
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(attempt, images))


def read(path: Any, shape: Shape, reading: Reading = Reading()) -> Decoded:
    """An image file at `shape`, and what the file is known by, from one reading.

    `path` has `open("rb")`. Raises DataError, naming it, where it is not an image, damaged, of
    numbers without a known range, too long to decode, or has more than `reading.max_pixels` by its
    header; of a JPEG that is decoded at a half or less, more than five times as many.
    """
    # Large JPEGs decode to an eighth at best, 12 times as fast; at four times the size or more,
    # photos stay within 1.5 levels of 255 on average.
    sides = (4 * shape[1], 4 * shape[0])
    with _opened(path, sides, reading) as (image, content, (width, height), pixels):
        upright, notes = _upright(image, shape, reading)
        digest = sha256(content).digest()
        return Decoded(to_shape(upright, shape, reading), digest, width, height, pixels, notes)


def thumbnail(path: Path, side: int, reading: Reading = Reading()) -> NDArray[np.uint8]:
    """An image file in RGB, as it is but for its size: `side` pixels at most. Raises as `read`."""
    with _opened(path, (side, side), reading) as (image, *_):
        upright, _ = _upright(image, (side, side, 3), reading)
        upright.thumbnail((side, side))
        return np.asarray(upright)


@contextmanager
def _opened(
    path: Any, sides: tuple[int, int], reading: Reading
) -> Iterator[tuple[Image.Image, bytearray, tuple[int, int], int]]:
    """An image file, a JPEG no larger than it must be for `sides` (w, h); content, size, pixels.

    What goes wrong with it meanwhile is a DataError.
    """
    try:
        _require_bytes(path, getattr(path, "size", 0), reading.max_pixels)
        with path.open("rb") as file:
            with suppress(OSError):  # it is not on a disk
                _require_bytes(path, os.fstat(file.fileno()).st_size, reading.max_pixels)
            content = _content(file, path, reading.max_pixels)
        with _of_any_size(_Timed(content)) as image:
            size = image.size
            scans = content.count(_SCAN) if image.format in ("JPEG", "MPO") else 0
            if scans > _SCANS:
                raise DataError(f"{path}: a JPEG of {scans} scans; save it anew, as other images")
            image.draft(None, sides)
            yield image, content, size, _pixels(path, image, size, reading)
    except Exception as error:
        raise _refused(path, error) from error


def _refused(name: Any, error: Exception) -> DataError:
    """What is said of an image; a decoder may raise anything for bytes that are none."""
    if isinstance(error, DataError):
        return error
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{name}: not an image of {', '.join(_formats())}, or empty")
    said = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{name}: not a readable image ({said})")


@cache
def _formats() -> tuple[str, ...]:
    """Those wanted that this Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _of_any_size(file: BytesIO) -> ImageFile.ImageFile:
    """An image, not decoded yet. `Image.open` would refuse large ones, whatever `max_pixels` is.

    So do GIF, TIFF and WebP, of more than 179 million pixels, which few have.
    """
    start = file.read(16)
    for name in _formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and not accept(start):
            continue
        file.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as `Image.open` does
            return factory(file, "")
    raise UnidentifiedImageError


class _Timed(BytesIO):
    """A file's content, of which no more is read when an image has had its time.

    Decoders ask for it piece by piece, so a file made to be decoded for ever ends here.
    """

    def __init__(self, content: bytes | bytearray) -> None:
        super().__init__(content)
        self._until = time.thread_time() + _SECONDS

    def read(self, size: int | None = -1) -> bytes:
        if time.thread_time() > self._until:
            raise TimeoutError(f"decoding takes longer than {_SECONDS:.0f} s")
        return super().read(size)


def _pixels(name: Any, image: Image.Image, size: tuple[int, int], reading: Reading) -> int:
    """Pixels that count of an image whose file has `size`. Raises DataError for too many."""
    width, height = size
    drafted = image.width * image.height * 4 <= width * height
    count = -(-width * height // _DRAFT) if drafted else width * height
    if count > reading.max_pixels:
        raise DataError(
            f"{name}: {width}x{height} pixels are more than max_pixels {reading.max_pixels}"
            f"{f' allows, {_DRAFT} times that for a large JPEG' if drafted else ''}; scale it down "
            "or raise the limit"
        )
    return count


def _content(file: IO[bytes], path: Any, max_pixels: int) -> bytearray:
    """The whole file, but no more of it than an image within the limits can need."""
    content = bytearray()
    while block := file.read(1 << 18):
        if not content and not _looks_like_an_image(block):
            break  # before more of it is read, or inflated
        content += block
        _require_bytes(path, len(content), max_pixels)
    if not content:
        raise UnidentifiedImageError
    return content


def _looks_like_an_image(start: bytes) -> bool:
    accepting = [Image.OPEN[name][1] for name in _formats()]
    return any(accept is None or accept(start[:16]) for accept in accepting)


def _require_bytes(path: Any, size: int, max_pixels: int) -> None:
    most = 8 * max_pixels + (1 << 20)  # 16 bits RGBA, not compressed, and metadata
    if size > most:
        raise DataError(
            f"{path}: more than the {most} bytes that {max_pixels} pixels can take "
            "(max_pixels); scale it down or raise the limit"
        )


def _of_array(
    image: NDArray[Any], shape: Shape, reading: Reading
) -> tuple[NDArray[np.uint8], bytes | None]:
    """An array at `shape`, and SHA-256 of its pixels where these were scaled."""
    if image.dtype != np.uint8:
        raise DataError(f"an array of an image holds uint8, 0 to 255, not {image.dtype}")
    if image.shape == shape:
        return image, None
    grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    colour = grey.ndim == 3 and grey.shape[-1] in (3, 4)
    if shape[-1] not in _MODES or not (grey.ndim == 2 or colour) or not grey.size:
        raise DataError(f"an array of an image is {shape} or (h, w, c), not {image.shape}")
    upright, _ = _upright(Image.fromarray(grey), shape, reading)
    return to_shape(upright, shape, reading), _of_pixels(np.asarray(upright))


def _of_pixels(pixels: NDArray[np.uint8]) -> bytes:
    return sha256(np.ascontiguousarray(pixels).data).digest()


def _upright(
    image: Image.Image, shape: Shape, reading: Reading
) -> tuple[Image.Image, tuple[str, ...]]:
    """Turned by its EXIF orientation, grey or RGB as `shape` has channels, at its own size."""
    if shape[-1] not in _MODES:
        raise DataError(f"the network takes {shape[-1]} channels: give it arrays of {shape}")
    if isinstance(image, ImageFile.ImageFile):
        image.decodermaxblock = _BLOCK
    if image.format == "TIFF":
        image.load_end = lambda: None  # type: ignore[attr-defined]  # it would rewrite the EXIF
    image.load()
    turn = _TURNS.get(_orientation(image))
    flat, notes = _eight_bit(image)
    if flat.has_transparency_data:
        over = flat.convert("RGBA")
        under = Image.new("RGBA", over.size, ImageColor.getrgb(reading.background))
        if over.getchannel("A").getextrema() != (255, 255):
            notes = (*notes, f"transparent, laid on {reading.background} (dataset.background)")
        flat = Image.alpha_composite(under, over)
    flat = flat.convert(_MODES[shape[-1]])
    return flat if turn is None else flat.transpose(turn), notes


def _orientation(image: Image.Image) -> Any:
    """As EXIF or XMP has it; 1, upright, where they cannot be read."""
    if len(image.info.get("exif", b"")) > _LARGEST_EXIF:
        return 1
    try:
        tags = getattr(image, "tag_v2", None)  # of TIFF, whose file is closed by now
        orientation = (image.getexif() if tags is None else tags).get(0x0112, 1)
        hash(orientation)
    except Exception:  # odd metadata never cost an image
        return 1
    return orientation


def to_shape(image: Image.Image, shape: Shape, reading: Reading = Reading()) -> NDArray[np.uint8]:
    """The whole of it, its sides scaled apart; by area only down, as that up repeats pixels."""
    height, width, _ = shape
    down = width <= image.width and height <= image.height
    by = "bicubic" if reading.interpolation == "area" and not down else reading.interpolation
    return np.asarray(image.resize((width, height), _RESAMPLINGS[by])).reshape(shape)


def _eight_bit(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Greyscale of more bits or floats scaled to 8 bits, which Pillow's own conversion cuts off.

    16 bits that use no more than 12, as of microscopes, are taken for these; floats are 0 to 1.
    Raises DataError for numbers of another range.
    """
    if not image.mode.startswith(("I", "F")):
        return image, ()
    values = np.asarray(image)
    least, most = float(values.min()), float(values.max())
    if image.mode.startswith("F"):
        if not (least >= 0 and most <= 1):  # nor is NaN
            raise ValueError(f"floats from {least:g} to {most:g}, not 0 to 1; save it as 8 bits")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8)), ("floats from 0 to 1",)
    if least < 0 or most > 65535:
        raise ValueError(
            f"whole numbers from {least:.0f} to {most:.0f}, not 0 to 65535; save it as 8 bits"
        )
    # A Netpbm file says its range, to which Pillow has scaled it.
    twelve = most < 4096 and image.format != "PPM"
    scaled = values.astype(np.float32) * (255 / (4095 if twelve else 65535))
    notes = ("of 16 bits that use 12 or fewer, read as 12",) if twelve and most else ()
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), notes
