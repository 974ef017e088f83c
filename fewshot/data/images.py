"""One image of any source, decoded, turned upright and scaled: training and prediction share it."""

import warnings
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core.errors import DataError
from ..core.machine import cores

Shape = tuple[int, int, int]
T = TypeVar("T")

# What Pillow and zipfile raise for damaged, encrypted or monstrous files.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip

MAX_PIXELS = 50_000_000

_MODES = {1: "L", 3: "RGB"}  # by channels


class Decoded(NamedTuple):
    """One image (h, w, c) uint8, the SHA-256 of its file, and the file's own size."""

    image: NDArray[np.uint8]
    sha256: bytes
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Pixels of the file."""
        return self.width * self.height


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


def picture(image: Any, shape: Shape, max_pixels: int = MAX_PIXELS) -> Picture:
    """An image file, Pillow image, array (h, w[, c]) uint8 or `Picture` at `shape`.

    A file is a path, or anything with `open("rb")`. Arrays of `shape` are taken as they are, all
    other images scaled as in training. Raises DataError,
    naming the file, for what is no image, damaged, or above `max_pixels`.
    """
    if isinstance(image, Picture):
        scaled, digest = _of_array(image.image, shape)
        return image._replace(image=scaled, digest=image.digest or digest)
    if isinstance(image, np.ndarray):
        scaled, digest = _of_array(image, shape)
        return Picture(scaled, "array", digest)
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or "image")
        try:
            _check_size(name, image, max_pixels)
            upright = _upright(image, shape)
            return Picture(_scaled(upright, shape), name, _of_pixels(np.asarray(upright)))
        except UNREADABLE as error:
            raise DataError(f"{name}: not a readable image ({error})") from error
    file = Path(image) if isinstance(image, str) else image
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"{image}: {'not a file' if file.exists() else 'no such file'}")
    if not hasattr(file, "open"):
        raise DataError(
            "an image is a path, a Pillow image or an array (h, w, c) uint8, "
            f"not {type(image).__name__}"
        )
    decoded = read(file, shape, max_pixels)
    return Picture(decoded.image, str(image), decoded.sha256)


def decode_images(images: Sequence[Any], shape: Shape) -> list[Picture | DataError]:
    """`picture` of each, on all cores; an error in the place of an image that cannot be used."""

    def attempt(image: Any) -> Picture | DataError:
        try:
            return picture(image, shape)
        except DataError as error:
            return error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_pixels decides on size; odd metadata do no harm
        if len(images) == 1:
            return [attempt(images[0])]
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(attempt, images))


def read(path: Any, shape: Shape, max_pixels: int = MAX_PIXELS) -> Decoded:
    """An image file at `shape`, and what the file is known by, from one reading.

    `path` has `open("rb")`. Raises DataError, naming it, where it is not an image, damaged, or has
    more than `max_pixels` by its header.
    """
    try:
        with path.open("rb") as file:
            content = _content(file, path, max_pixels)
        with Image.open(BytesIO(content)) as image:
            _check_size(path, image, max_pixels)
            width, height = image.size
            # Large JPEGs decode to an eighth at best, 12 times as fast; at four times the size
            # or more, photos stay within 1.5 levels of 255 on average.
            image.draft(None, (4 * shape[1], 4 * shape[0]))
            pixels = _scaled(_upright(image, shape), shape)
            return Decoded(pixels, sha256(content).digest(), width, height)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that Pillow knows, or empty") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def _check_size(name: Any, image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise DataError(
            f"{name}: {image.width}x{image.height} pixels are more than max_pixels "
            f"{max_pixels}; scale it down or raise the limit"
        )


def _content(file: IO[bytes], path: Any, max_pixels: int) -> bytes:
    """The whole file, but no more of it than an image within the limits can need."""
    most = 8 * max_pixels + (1 << 20)  # 16 bits RGBA, not compressed, and metadata
    blocks: list[bytes] = []
    while block := file.read(1 << 18):
        blocks.append(block)
        if sum(map(len, blocks)) > most:
            raise DataError(
                f"{path}: more than the {most} bytes that {max_pixels} pixels can take "
                "(max_pixels); scale it down or raise the limit"
            )
    return b"".join(blocks)


def _of_array(image: NDArray[Any], shape: Shape) -> tuple[NDArray[np.uint8], bytes | None]:
    """An array at `shape`, and SHA-256 of its pixels where these were scaled."""
    if image.dtype != np.uint8:
        raise DataError(f"an array of an image holds uint8, 0 to 255, not {image.dtype}")
    if image.shape == shape:
        return image, None
    grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    colour = grey.ndim == 3 and grey.shape[-1] in (3, 4)
    if shape[-1] not in _MODES or not (grey.ndim == 2 or colour) or not grey.size:
        raise DataError(f"an array of an image is {shape} or (h, w, c), not {image.shape}")
    upright = _upright(Image.fromarray(grey), shape)
    return _scaled(upright, shape), _of_pixels(np.asarray(upright))


def _of_pixels(pixels: NDArray[np.uint8]) -> bytes:
    return sha256(np.ascontiguousarray(pixels).data).digest()


def _upright(image: Image.Image, shape: Shape) -> Image.Image:
    """EXIF orientation applied, grey or RGB as `shape` has channels, at its own size."""
    if shape[-1] not in _MODES:
        raise DataError(f"the network takes {shape[-1]} channels: give it arrays of {shape}")
    return _eight_bit(ImageOps.exif_transpose(image)).convert(_MODES[shape[-1]])


def _scaled(image: Image.Image, shape: Shape) -> NDArray[np.uint8]:
    """Scaled down by area, up by cubics: an area of less than a pixel repeats pixels."""
    height, width, _ = shape
    down = width <= image.width and height <= image.height
    resampling = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), resampling)).reshape(shape)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits scaled to 8, which Pillow's own conversion cuts off."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))


def listed(images: Any) -> list[Any]:
    """One image or many, as a list."""
    one = isinstance(images, str | Path | Image.Image | Picture)
    if one or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    return list(images)


def or_raise(results: Sequence[T | DataError]) -> list[T]:
    """All results, or one DataError for those that are none."""
    errors = [each for each in results if isinstance(each, DataError)]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    return [each for each in results if not isinstance(each, DataError)]
